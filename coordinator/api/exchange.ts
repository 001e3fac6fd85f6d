// One HTTP request and its response, as every route sees it, and the few ways to answer. Node's `writeHead` gets flat
// lists: that is its fastest way, and headers stay what they are.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { asFailure, type Failure } from '../../shared/failure.ts';
import { falError, platformError, type ErrorAnswer } from './error-body.ts';

export interface Exchange {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  /** Path and query behind the prefix of the service; begins with `/`. */
  readonly target: string;
  /** `/queue` where the caller used the path, empty where the Host header named the service. */
  readonly prefix: string;
  /** CORS headers for an allowed origin, flat; else empty. */
  readonly cors: readonly string[];
}

/** Answers once and whole. A request whose body was not read to its end costs its connection. */
export function respond(
  x: Exchange,
  status: number,
  headers: readonly string[],
  body: string | Uint8Array,
): void {
  const { req, res } = x;
  if (res.headersSent || res.destroyed) return;
  const size = typeof body === 'string' ? Buffer.byteLength(body) : body.byteLength;
  const all = [...headers, ...x.cors];
  if (status !== 204 && status !== 304) all.push('content-length', String(size));
  if (!req.complete) all.push('connection', 'close');
  res.writeHead(status, all);
  res.end(body);
}

/** `requestId` goes into `x-fal-request-id`: its presence tells clients that the platform answered. */
export function respondJson(x: Exchange, status: number, requestId: string, value: unknown): void {
  respond(
    x,
    status,
    ['content-type', 'application/json', 'x-fal-request-id', requestId],
    JSON.stringify(value),
  );
}

/** Ends the exchange with a failure in fal's shape; once the response began, only breaking it off tells the truth. */
export function failFal(x: Exchange, requestId: string, thrown: unknown): Failure {
  const failure = asFailure(thrown);
  sendError(x, falError(failure.code, failure.message), ['x-fal-request-id', requestId]);
  return failure;
}

/** The same in the shape of /v1. */
export function failPlatform(x: Exchange, thrown: unknown): Failure {
  const failure = asFailure(thrown);
  sendError(x, platformError(failure), []);
  return failure;
}

function sendError(x: Exchange, answer: ErrorAnswer, extra: readonly string[]): void {
  if (x.res.headersSent) x.res.destroy();
  else respond(x, answer.status, [...answer.headers, ...extra], answer.body);
}

export function headerOf(req: IncomingMessage, name: string): string | undefined {
  const value = req.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** Resolves when the response took what it was given, or is gone. */
export function drained(res: ServerResponse): Promise<void> {
  if (!res.writableNeedDrain || res.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const settle = (): void => {
      res.off('drain', settle);
      res.off('close', settle);
      resolve();
    };
    res.on('drain', settle);
    res.on('close', settle);
  });
}

/** Streams bytes into a response whose head is written, no faster than the caller reads. */
export async function pour(x: Exchange, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of bytes) {
    if (x.res.destroyed) return;
    if (!x.res.write(chunk)) await drained(x.res);
  }
  x.res.end();
}
