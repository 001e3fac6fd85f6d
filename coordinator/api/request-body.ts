// Takes in the body of a request: small ones into memory, larger ones straight into the payload store, never both. A
// caller that declares too much is refused before a byte is read; one that drips is cut off (slowloris, survival F44).
import type { IncomingMessage } from 'node:http';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { NewBody } from '../core/event.ts';
import type { PayloadStore } from '../payload/payload-store.ts';
import { headerOf } from './exchange.ts';

/** The first bytes of a body, and whether that is all of it. */
interface Head {
  chunks: Uint8Array[];
  sizeBytes: number;
  whole: boolean;
}

/**
 * Reads a body of at most `maxBytes` whole into memory.
 *
 * @throws Failure INPUT_TOO_LARGE, CLIENT_DISCONNECTED
 */
export async function readSmallBody(
  req: IncomingMessage,
  maxBytes: number,
  clock: Clock,
): Promise<Uint8Array> {
  checkDeclared(req, maxBytes);
  const stop = cutOffSlow(req, clock);
  try {
    const head = await readHead(req, maxBytes);
    if (!head.whole) throw tooLarge(maxBytes);
    return joined(head);
  } finally {
    stop();
  }
}

/**
 * Reads the body of a request to be queued.
 *
 * @throws Failure INPUT_TOO_LARGE, CLIENT_DISCONNECTED, DISK_FULL, UNAVAILABLE
 */
export async function receiveBody(
  req: IncomingMessage,
  payloads: PayloadStore,
  clock: Clock,
): Promise<NewBody> {
  checkDeclared(req, limits.inputBytes);
  const stop = cutOffSlow(req, clock);
  try {
    const head = await readHead(req, limits.inlineBytes);
    if (head.whole) return { kind: 'inline', bytes: joined(head) };
    const stored = await payloads.write(restOf(head, req), { maxBytes: limits.inputBytes });
    return { kind: 'payload', ...stored };
  } finally {
    stop();
  }
}

/** The body as a stream for somebody who bounds it himself; slow senders are cut off here too. */
export async function* streamBody(req: IncomingMessage, clock: Clock): AsyncGenerator<Uint8Array> {
  const stop = cutOffSlow(req, clock);
  try {
    yield* restOf({ chunks: [], sizeBytes: 0, whole: false }, req);
  } finally {
    stop();
  }
}

/** @throws Failure INPUT_TOO_LARGE before a byte is read */
export function checkDeclared(req: IncomingMessage, maxBytes: number): void {
  const declared = headerOf(req, 'content-length');
  if (declared !== undefined && Number(declared) > maxBytes) throw tooLarge(maxBytes);
}

function tooLarge(maxBytes: number): Failure {
  return new Failure('INPUT_TOO_LARGE', `the body may have ${maxBytes} bytes`);
}

function gone(cause?: unknown): Failure {
  return new Failure('CLIENT_DISCONNECTED', 'the caller went away within its body', { cause });
}

function joined(head: Head): Uint8Array {
  const [only] = head.chunks;
  return head.chunks.length === 1 && only ? only : Buffer.concat(head.chunks, head.sizeBytes);
}

function readHead(req: IncomingMessage, maxBytes: number): Promise<Head> {
  const head: Head = { chunks: [], sizeBytes: 0, whole: false };
  if (req.readableEnded) return Promise.resolve({ ...head, whole: true });
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      req.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onError);
    };
    const onData = (chunk: Buffer): void => {
      head.chunks.push(chunk);
      head.sizeBytes += chunk.byteLength;
      if (head.sizeBytes <= maxBytes) return;
      settle();
      req.pause();
      resolve(head);
    };
    const onEnd = (): void => {
      settle();
      head.whole = true;
      resolve(head);
    };
    const onClose = (): void => {
      settle();
      reject(gone());
    };
    const onError = (cause: unknown): void => {
      settle();
      reject(gone(cause));
    };
    if (req.destroyed) return reject(gone());
    req.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onError);
  });
}

async function* restOf(head: Head, req: IncomingMessage): AsyncGenerator<Uint8Array> {
  yield* head.chunks;
  try {
    // The socket must live on when the reader stops early: the caller is still to get an answer.
    for await (const chunk of req.iterator({ destroyOnReturn: false })) yield asBytes(chunk);
  } catch (cause) {
    throw gone(cause);
  }
}

function asBytes(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk;
  throw new Failure('INTERNAL', 'a request body gave something else than bytes');
}

/** Breaks the connection when a whole window brings less than the least rate; returns how to stop watching. */
export function cutOffSlow(req: IncomingMessage, clock: Clock): () => void {
  const least = limits.bodyLeastBytesPerSecond * (limits.bodyRateWindowMs / 1000);
  let seen = 0;
  let timer = clock.after(limits.bodyRateWindowMs, look);
  function look(): void {
    const read = req.socket.bytesRead;
    // Bytes that wait for us (back-pressure) are not the sender's fault.
    if (read - seen < least && req.readableLength === 0) {
      req.destroy();
      return;
    }
    seen = read;
    timer = clock.after(limits.bodyRateWindowMs, look);
  }
  seen = req.socket.bytesRead;
  return () => timer.cancel();
}
