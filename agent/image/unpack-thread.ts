// The thread that unpacks one archive, and the call that starts it. In a thread, because unpacking is synchronous (see
// layer-tree.ts) and the agent must answer its coordinator meanwhile. A thread that ends without an answer has met an
// archive that ended inside an entry.
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { Failure, asFailure, type FailureCode, type FailureDetail } from '../../shared/failure.ts';
import { unpackArchive, type UnpackJob, type UnpackedArchive } from './unpack-archive.ts';

type Answer =
  | { unpacked: UnpackedArchive }
  | { failed: { code: FailureCode; message: string; detail: FailureDetail; cause: string } };

/** Marks the data of our own threads: a test runner may load this file in a thread of its own. */
interface ThreadData {
  runmeshUnpack: UnpackJob;
}

/** @throws Failure LAYER_INVALID, DISK_FULL, HOST_COMMAND_FAILED; the signal's reason */
export async function unpackInThread(
  job: UnpackJob,
  signal: AbortSignal,
): Promise<UnpackedArchive> {
  signal.throwIfAborted();
  const data: ThreadData = { runmeshUnpack: job };
  const thread = new Worker(new URL(import.meta.url), { workerData: data });
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const stop = (): void => reject(signal.reason);
  signal.addEventListener('abort', stop, { once: true });
  thread.once('message', resolve);
  thread.once('error', reject);
  thread.once('exit', () =>
    reject(new Failure('LAYER_INVALID', 'the archive ends in the middle of an entry')),
  );
  try {
    const answer = await promise;
    if ('unpacked' in answer) return answer.unpacked;
    const { code, message, detail, cause } = answer.failed;
    throw new Failure(code, message, { detail, cause: new Error(cause) });
  } catch (error) {
    signal.throwIfAborted();
    throw asFailure(error, 'HOST_COMMAND_FAILED');
  } finally {
    signal.removeEventListener('abort', stop);
    // The folder is removed or renamed next: nobody may write into it any more.
    await thread.terminate();
  }
}

function isThreadData(data: unknown): data is ThreadData {
  return typeof data === 'object' && data !== null && 'runmeshUnpack' in data;
}

async function answerJob(job: UnpackJob): Promise<Answer> {
  try {
    return { unpacked: await unpackArchive(job) };
  } catch (error) {
    const { code, message, detail, cause } = asFailure(error);
    const why = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause ?? message);
    return { failed: { code, message, detail, cause: why } };
  }
}

if (!isMainThread && isThreadData(workerData)) {
  const job = workerData.runmeshUnpack;
  void answerJob(job).then((answer) => parentPort?.postMessage(answer));
}
