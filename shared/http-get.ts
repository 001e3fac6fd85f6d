// GET and HEAD towards origins we do not trust, on undici: redirects by hand, so that secrets never leave the host
// they belong to (CVE-2020-15157 is about this) and every hop can be judged; limits on connecting and on silence.
// Answers are not interpreted here: whoever asks maps the status.
import { Agent, request, type Dispatcher } from 'undici';
import { Failure, type FailureCode } from './failure.ts';
import { isLoopbackHost } from './host-port.ts';
import { limits } from './limits.ts';

export interface GetOptions {
  method?: 'GET' | 'HEAD' | 'POST';
  body?: string;
  headers?: Readonly<Record<string, string>>;
  /** Sent to the host of the first URL only; dropped for good at the first hop to another. */
  authorization?: string;
  dispatcher: Dispatcher;
  /** Code of what goes wrong on the way: no connection, no answer, a bad redirect. */
  failure: FailureCode;
  redirects?: number;
  /** Judges each URL before it is asked, the first too. @throws Failure */
  judge?: (url: URL) => void;
}

export interface GetAnswer {
  /** Where the answer came from, after redirects. */
  url: URL;
  status: number;
  headers: Dispatcher.ResponseData['headers'];
  body: Dispatcher.ResponseData['body'];
}

/** Connections of one origin's client: bounded in connecting and in silence. */
export function originAgent(options: Agent.Options = {}): Agent {
  return new Agent({
    headersTimeout: limits.originSilenceMs,
    bodyTimeout: limits.originSilenceMs,
    keepAliveTimeout: 10_000,
    ...options,
    connect: { timeout: limits.originConnectMs, ...options.connect },
  });
}

/** @throws Failure with `options.failure` where there is no answer, or the redirects are not to be followed */
export async function httpGet(
  first: URL,
  options: GetOptions,
  signal: AbortSignal,
): Promise<GetAnswer> {
  const most = options.redirects ?? limits.redirects;
  let url = first;
  let authorization = options.authorization;
  for (let hop = 0; ; hop += 1) {
    options.judge?.(url);
    const answer = await ask(url, options, authorization, signal);
    const location = headerOf(answer.headers, 'location');
    const isRedirect = [301, 302, 303, 307, 308].includes(answer.status);
    if (!isRedirect || location === undefined) return answer;
    await discard(answer);
    if (hop >= most)
      throw new Failure(options.failure, `${hostOf(first)} redirects more than ${most} times`);
    const next = nextHop(url, location, options.failure);
    if (next.origin !== first.origin) authorization = undefined;
    url = next;
  }
}

/** The whole body as text. @throws Failure when it is over `maxBytes` or ends early */
export async function readBody(
  answer: GetAnswer,
  maxBytes: number,
  failure: FailureCode,
  tooLarge: FailureCode = failure,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      sizeBytes += chunk.byteLength;
      if (sizeBytes > maxBytes) {
        answer.body.destroy();
        throw new Failure(tooLarge, `${hostOf(answer.url)} sent more than ${maxBytes} bytes`);
      }
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(failure, `${hostOf(answer.url)} broke off its answer`, { cause: error });
  }
  return Buffer.concat(chunks);
}

/** Drops a body that nobody wants, without keeping its connection busy. */
export async function discard(answer: GetAnswer): Promise<void> {
  await answer.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
}

/** One value of a header; the first where there are several. */
export function headerOf(headers: GetAnswer['headers'], name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** Milliseconds of `Retry-After`, in seconds or as a date; undefined when there is none. */
export function retryAfterMs(headers: GetAnswer['headers'], nowMs: number): number | undefined {
  const value = headerOf(headers, 'retry-after')?.trim();
  if (value === undefined || value === '') return undefined;
  const waitMs = /^[0-9]+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - nowMs;
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(0, waitMs), limits.retryAfterMs);
}

/** Scheme, host and path: what may be shown and logged. Queries carry signatures. */
export function shownUrl(url: URL): string {
  return `${url.origin}${url.pathname}`;
}

const hostOf = (url: URL): string => url.host;

async function ask(
  url: URL,
  options: GetOptions,
  authorization: string | undefined,
  signal: AbortSignal,
): Promise<GetAnswer> {
  const headers: Record<string, string> = { 'user-agent': 'runmesh', ...options.headers };
  if (authorization !== undefined) headers['authorization'] = authorization;
  try {
    const {
      statusCode,
      headers: answered,
      body,
    } = await request(url, {
      method: options.method ?? 'GET',
      headers,
      dispatcher: options.dispatcher,
      signal,
      ...(options.body === undefined ? {} : { body: options.body }),
    });
    // Its errors reach whoever reads it; an unread one must not end the process.
    body.on('error', () => undefined);
    return { url, status: statusCode, headers: answered, body };
  } catch (error) {
    signal.throwIfAborted();
    const refused = failureIn(error);
    if (refused) throw refused;
    throw new Failure(options.failure, `${hostOf(url)} cannot be reached`, { cause: error });
  }
}

/** A failure of ours that undici wrapped, such as a refused address. */
function failureIn(thrown: unknown): Failure | undefined {
  let at = thrown;
  for (let depth = 0; at instanceof Error && depth < 8; depth += 1) {
    if (at instanceof Failure) return at;
    at = at.cause;
  }
  return undefined;
}

function nextHop(from: URL, location: string, failure: FailureCode): URL {
  if (!URL.canParse(location, from))
    throw new Failure(failure, `${hostOf(from)} redirects to something that is no URL`);
  const next = new URL(location, from);
  if (next.protocol !== 'https:' && next.protocol !== 'http:')
    throw new Failure(failure, `${hostOf(from)} redirects to ${next.protocol}, which is refused`);
  if (from.protocol === 'https:' && next.protocol === 'http:')
    throw new Failure(failure, `${hostOf(from)} redirects from https to http, which is refused`);
  if (isLoopbackHost(next.hostname) && !isLoopbackHost(from.hostname))
    throw new Failure(failure, `${hostOf(from)} redirects to this machine, which is refused`);
  next.username = '';
  next.password = '';
  return next;
}
