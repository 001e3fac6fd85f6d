// The threads that unpack archives. In threads, because unpacking is synchronous (see layer-tree.ts) and the agent must
// answer its coordinator meanwhile. A thread is used again: starting one costs more than a small layer.
//
// While a thread works it listens to nothing, so that it ends by itself when an archive leaves it with nothing to do;
// a thread that ends without an answer has met an archive that ended inside an entry.
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { Failure, asFailure, type FailureCode, type FailureDetail } from '../../shared/failure.ts';
import { unpackArchive, type UnpackJob, type UnpackedArchive } from './unpack-archive.ts';

type Answer =
  | { unpacked: UnpackedArchive }
  | { failed: { code: FailureCode; message: string; detail: FailureDetail; cause: string } };

/** Marks our own threads: a test runner may load this file in a thread of its own. */
const OURS = 'runmesh unpack';

/** Threads of one store; as many as it has jobs at one time. */
export class UnpackThreads {
  readonly #idle: Worker[] = [];

  /** @throws Failure LAYER_INVALID, DISK_FULL, HOST_COMMAND_FAILED; the signal's reason */
  async unpack(job: UnpackJob, signal: AbortSignal): Promise<UnpackedArchive> {
    signal.throwIfAborted();
    const thread = this.#idle.pop() ?? this.#start();
    thread.ref();
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const stop = (): void => reject(signal.reason);
    const onExit = (): void =>
      reject(new Failure('LAYER_INVALID', 'the archive ends in the middle of an entry'));
    signal.addEventListener('abort', stop, { once: true });
    thread.once('message', resolve).once('error', reject).once('exit', onExit);
    thread.postMessage(job);
    try {
      const answer = await promise;
      if ('unpacked' in answer) {
        this.#rest(thread);
        return answer.unpacked;
      }
      const { code, message, detail, cause } = answer.failed;
      throw new Failure(code, message, { detail, cause: new Error(cause) });
    } catch (error) {
      // The folder is removed next: nobody may write into it any more. And files left open are closed with it.
      await thread.terminate();
      signal.throwIfAborted();
      throw asFailure(error, 'HOST_COMMAND_FAILED');
    } finally {
      signal.removeEventListener('abort', stop);
      thread.removeListener('message', resolve);
      thread.removeListener('error', reject);
      thread.removeListener('exit', onExit);
    }
  }

  #start(): Worker {
    const thread = new Worker(new URL(import.meta.url), { workerData: OURS });
    thread.once('exit', () => {
      const at = this.#idle.indexOf(thread);
      if (at >= 0) this.#idle.splice(at, 1);
    });
    return thread;
  }

  /** Keeps a thread that has done its job; it does not keep the process alive. */
  #rest(thread: Worker): void {
    thread.unref();
    this.#idle.push(thread);
  }
}

async function answerJob(job: UnpackJob): Promise<Answer> {
  try {
    return { unpacked: await unpackArchive(job) };
  } catch (error) {
    const { code, message, detail, cause } = asFailure(error);
    const why = cause instanceof Error ? (cause.stack ?? cause.message) : message;
    return { failed: { code, message, detail, cause: why } };
  }
}

function listen(): void {
  parentPort?.once('message', (job: UnpackJob) => {
    void answerJob(job).then((answer) => {
      parentPort?.postMessage(answer);
      listen();
    });
  });
}

if (!isMainThread && workerData === OURS) listen();
