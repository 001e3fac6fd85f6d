// One HTTP call to a runner, for a queued attempt: the input goes out, the response comes back whole or not at all. How
// it ended is a value; the codes are what the retry rule reads.
//   U1  A response counts only when its body arrived to the last byte (R19): nothing truncated is ever kept.
//   U2  A body beyond `inlineBytes` goes to disk as it comes; memory stays bounded whatever the app sends.
import { open, rm, type FileHandle } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { request, type Dispatcher } from 'undici';
import { deadline, sleep, type Clock } from '../../shared/clock.ts';
import { Hashing } from '../../shared/digest.ts';
import { asFailure, Failure, systemCode } from '../../shared/failure.ts';
import { formatHostPort, type HostPort } from '../../shared/host-port.ts';
import { limits } from '../../shared/limits.ts';
import type { Headers } from '../../shared/protocol.ts';
import { isDiskFull } from '../../shared/durable-folder.ts';
import { passedOn } from '../http/hop-headers.ts';
import type { HeldBody, HeldOutcome } from './outbox.ts';

export type CallInput =
  { kind: 'inline'; bytes: Uint8Array } | { kind: 'stream'; stream: Readable; sizeBytes: number };

export interface Call {
  address: HostPort;
  /** Aborts with a Failure when the runner's process ends. */
  gone: AbortSignal;
  method: string;
  path: string;
  headers: Headers;
  input: CallInput;
  timeoutMs: number;
  /** Where a large body goes. */
  bodyPath: string;
}

export interface CallParts {
  clock: Clock;
  dispatcher: Dispatcher;
}

/** A broken connection is often the first sign of a process that ended; so long is waited for the second. */
const EXIT_SEEN_WITHIN_MS = 500;

/** Never rejects. `signal` aborts with a Failure, which then is the outcome. */
export async function callRunner(
  call: Call,
  parts: CallParts,
  signal: AbortSignal,
): Promise<HeldOutcome> {
  const late = new Failure('REQUEST_TIMEOUT', `the app did not answer within ${call.timeoutMs} ms`);
  const limit = deadline(parts.clock, call.timeoutMs, late, AbortSignal.any([signal, call.gone]));
  let hasHead = false;
  try {
    const response = await request(`http://${formatHostPort(call.address)}${call.path}`, {
      method: call.method,
      headers: headersOf(call),
      body: bodyOf(call),
      dispatcher: parts.dispatcher,
      signal: limit.signal,
      responseHeaders: 'raw',
    });
    hasHead = true;
    const body = await read(response.body, call.bodyPath);
    const headers = pairs(passedOn(flat(response.headers)));
    return { kind: 'response', status: response.statusCode, headers, body };
  } catch (thrown) {
    const failure = limit.signal.aborted
      ? asFailure(limit.signal.reason)
      : await classify(thrown, hasHead, call, parts.clock);
    return { kind: 'failed', code: failure.code, message: failure.message };
  } finally {
    limit.cancel();
    if (call.input.kind === 'stream') call.input.stream.destroy();
  }
}

function headersOf(call: Call): string[] {
  const sizeBytes =
    call.input.kind === 'inline' ? call.input.bytes.byteLength : call.input.sizeBytes;
  const kept = passedOn(call.headers.flat());
  const headers: string[] = [];
  for (let at = 0; at + 1 < kept.length; at += 2) {
    const [name = '', value = ''] = [kept[at], kept[at + 1]];
    if (name.toLowerCase() !== 'content-length') headers.push(name, value);
  }
  if (sizeBytes > 0 || !isBodyless(call.method)) headers.push('content-length', String(sizeBytes));
  return headers;
}

function bodyOf(call: Call): Uint8Array | Readable | null {
  if (call.input.kind === 'stream') return call.input.stream;
  return call.input.bytes.byteLength > 0 ? call.input.bytes : null;
}

function isBodyless(method: string): boolean {
  return method === 'GET' || method === 'HEAD';
}

async function read(stream: Readable, path: string): Promise<HeldBody> {
  const hashing = new Hashing();
  let chunks: Buffer[] = [];
  let file: FileHandle | undefined;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      hashing.update(chunk);
      if (hashing.sizeBytes > limits.resultBytes)
        throw new Failure(
          'RUNNER_RESPONSE_TOO_LARGE',
          `the response of the app is over ${limits.resultBytes} bytes`,
        );
      if (!file && hashing.sizeBytes <= limits.inlineBytes) {
        chunks.push(chunk);
        continue;
      }
      file ??= await open(path, 'w', 0o600); // U2
      for (const held of chunks) await file.writeFile(held);
      chunks = [];
      await file.writeFile(chunk);
    }
  } catch (thrown) {
    await file?.close();
    file = undefined;
    await rm(path, { force: true }).catch(() => undefined);
    throw thrown; // U1
  } finally {
    await file?.close();
  }
  if (!file) return { kind: 'inline', bytes: Buffer.concat(chunks) };
  return { kind: 'file', path, digest: hashing.digest(), sizeBytes: hashing.sizeBytes };
}

async function classify(
  thrown: unknown,
  hasHead: boolean,
  call: Call,
  clock: Clock,
): Promise<Failure> {
  if (thrown instanceof Failure) return thrown;
  if (isDiskFull(thrown)) return new Failure('DISK_FULL', 'no space left for the result');
  const code = systemCode(thrown) ?? '';
  if (code === 'UND_ERR_HEADERS_OVERFLOW')
    return new Failure(
      'RUNNER_RESPONSE_TOO_LARGE',
      `the response headers of the app are over ${limits.headerBytes} bytes`,
    );
  if (code === 'UND_ERR_INVALID_ARG')
    return new Failure('INPUT_INVALID', `the request cannot be sent: ${messageOf(thrown)}`);
  await sleep(clock, EXIT_SEEN_WITHIN_MS, call.gone).catch(() => undefined);
  if (call.gone.aborted) return asFailure(call.gone.reason);
  if (code === 'ECONNREFUSED')
    return new Failure('RUNNER_REFUSED', `nobody listens on port ${call.address.port}`);
  if (hasHead)
    return new Failure('RUNNER_INCOMPLETE', `the response broke off: ${messageOf(thrown)}`);
  return new Failure('RUNNER_CONNECTION', `the connection failed: ${messageOf(thrown)}`);
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** undici types raw headers as a record, and gives a flat list. */
function flat(headers: unknown): string[] {
  return Array.isArray(headers) ? headers.map(String) : [];
}

function pairs(list: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < list.length; at += 2) pairs.push([list[at] ?? '', list[at + 1] ?? '']);
  return pairs;
}
