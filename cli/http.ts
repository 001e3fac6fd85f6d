// One HTTP exchange with the coordinator, and its failures in the words of this command: nobody there, not a
// coordinator, credentials, a refusal with its field. Commands never see a status code or a socket error.
import { isFailureCode, systemCode } from '../shared/failure.ts';
import { limits } from '../shared/limits.ts';
import { CommandFailure } from './command-failure.ts';
import { exitOfFailure, type Exit } from './exit-codes.ts';

export const DEFAULT_URL = 'http://127.0.0.1:8800';

export interface Exchange {
  method?: 'GET' | 'POST' | 'PUT';
  headers?: Record<string, string>;
  body?: string | Blob;
  /** May be silent for longer than the five minutes that Node's own fetch allows. */
  patient?: boolean;
  /** Statuses that are answers to the caller rather than failures; default: 2xx. */
  accept?: (status: number, headers: HttpResponse['headers']) => boolean;
}

/** What of a response is used; both fetches give it. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: { get(name: string): string | null; has(name: string): boolean };
  readonly body: (AsyncIterable<Uint8Array> & { cancel(): Promise<void> }) | null;
  text(): Promise<string>;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** The coordinator as an HTTP peer. */
export interface Http {
  readonly url: string;
  /** @throws CommandFailure */
  exchange(path: string, exchange?: Exchange, signal?: AbortSignal): Promise<HttpResponse>;
  /** @throws CommandFailure */
  json(path: string, exchange?: Exchange, signal?: AbortSignal): Promise<unknown>;
  close(): Promise<void>;
}

/** @throws CommandFailure usage when RUNMESH_URL is none */
export function openHttp(env: Readonly<Record<string, string | undefined>>): Http {
  const url = baseUrl(env['RUNMESH_URL'] || DEFAULT_URL);
  const key = env['RUNMESH_KEY'];
  let patient: PatientFetch | undefined;
  const exchange: Http['exchange'] = async (path, what = {}, signal) => {
    const headers = { ...what.headers, ...(key ? { authorization: `Key ${key}` } : {}) };
    let response: HttpResponse;
    try {
      const init: Init = {
        method: what.method ?? 'GET',
        headers,
        redirect: 'manual',
        ...(what.body === undefined ? {} : { body: what.body }),
        ...(signal ? { signal } : {}),
      };
      if (what.patient) patient ??= await openPatientFetch();
      response =
        what.patient && patient
          ? await patient.fetch(`${url}${path}`, init)
          : await fetch(`${url}${path}`, init);
    } catch (thrown) {
      throw signal?.aborted ? signal.reason : unreachable(url, thrown);
    }
    const accept = what.accept ?? isGood;
    if (accept(response.status, response.headers)) return response;
    throw await refusal(url, path, response);
  };
  return {
    url,
    exchange,
    async json(path, what, signal) {
      const response = await exchange(path, what, signal);
      const text = await readText(url, response, signal);
      try {
        return JSON.parse(text) as unknown;
      } catch (cause) {
        throw notOurs(url, `${path} answered something that is not JSON`, cause);
      }
    },
    close: async () => patient?.close(),
  };
}

interface Init {
  method: string;
  headers: Record<string, string>;
  redirect: 'manual';
  body?: string | Blob;
  signal?: AbortSignal;
}

interface PatientFetch {
  fetch(url: string, init: Init): Promise<HttpResponse>;
  close(): Promise<void>;
}

/** Loaded only when needed: undici takes as long to load as all the rest of a listing takes. */
async function openPatientFetch(): Promise<PatientFetch> {
  const { Agent, fetch } = await import('undici');
  const dispatcher = new Agent({
    connect: { timeout: limits.originConnectMs },
    headersTimeout: 0,
    bodyTimeout: 0,
  });
  return {
    fetch: (url, init) => fetch(url, { ...init, dispatcher }),
    close: () => dispatcher.destroy(),
  };
}

function baseUrl(text: string): string {
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol) && !url.search && !url.hash)
    return url.href.replace(/\/+$/, '');
  throw new CommandFailure('usage', `RUNMESH_URL: ${text} is not a URL of a coordinator`, {
    next: `Set it to something like ${DEFAULT_URL}.`,
  });
}

/** The body as text; a connection that breaks within it is told as such. */
export async function readText(
  url: string,
  response: HttpResponse,
  signal?: AbortSignal,
): Promise<string> {
  try {
    return await response.text();
  } catch (thrown) {
    throw signal?.aborted ? signal.reason : unreachable(url, thrown);
  }
}

function unreachable(url: string, thrown: unknown): CommandFailure {
  const code = systemCode(thrown);
  const words: Record<string, string> = {
    ECONNREFUSED: 'nobody listens there',
    ENOTFOUND: 'there is no such host',
    EAI_AGAIN: 'the name cannot be looked up',
    ECONNRESET: 'the connection broke',
    UND_ERR_SOCKET: 'the connection broke',
    UND_ERR_CONNECT_TIMEOUT: 'nobody answers',
    EHOSTUNREACH: 'there is no way to that host',
    ENETUNREACH: 'there is no way to that network',
  };
  const why = (code === undefined ? undefined : words[code]) ?? code ?? messageOf(thrown);
  return new CommandFailure('unreachable', `no coordinator answers at ${url}: ${why}`, {
    code: 'UNAVAILABLE',
    next: 'Start one with `runmesh dev`, or set RUNMESH_URL to where it is.',
    cause: thrown instanceof Error && code === undefined ? thrown : undefined,
  });
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

function notOurs(url: string, what: string, cause?: unknown): CommandFailure {
  return new CommandFailure('protocol', `${url} does not answer like a coordinator: ${what}`, {
    next: 'Check RUNMESH_URL, and that the coordinator is of a version that fits.',
    cause,
  });
}

const byStatus: Record<number, Exit> = {
  400: 'data',
  401: 'auth',
  403: 'auth',
  404: 'missing',
  413: 'data',
  422: 'data',
  408: 'retry',
  429: 'retry',
  502: 'retry',
  503: 'retry',
  504: 'retry',
  507: 'host',
};

/** Reads both error shapes: ours (`error.code`) and fal's (`detail`, `error_type`). */
async function refusal(url: string, path: string, response: HttpResponse): Promise<CommandFailure> {
  const { status } = response;
  const body = parsed(await response.text().catch(() => ''));
  const error = record(body?.['error']);
  const code = stringOf(error?.['code']);
  if (error && code !== undefined) {
    return new CommandFailure(
      isFailureCode(code) ? exitOfFailure(code) : (byStatus[status] ?? 'failed'),
      stringOf(error['message']) ?? `HTTP ${status}`,
      { code, field: stringOf(error['field']), next: stringOf(error['doc']) },
    );
  }
  const detail = stringOf(body?.['detail']);
  if (detail !== undefined)
    return new CommandFailure(byStatus[status] ?? 'failed', detail, {
      code: stringOf(body?.['error_type']),
      next: nextOf[byStatus[status] ?? 'failed'],
    });
  return notOurs(url, `${path} answered HTTP ${status}`);
}

const nextOf: Partial<Record<Exit, string>> = {
  auth: 'Set RUNMESH_KEY to a key that may do this.',
  missing: 'See `runmesh apps` for what there is.',
  retry: 'Try again in a moment.',
};

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    return record(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** The value as a record of unknowns, if it is one. */
export function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

export function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

const isGood = (status: number): boolean => status >= 200 && status < 300;

/**
 * Tells a coordinator's answer from something else's by one key. A schema would take longer to load than a listing
 * takes, and would refuse what a newer coordinator adds.
 */
export function checked<T>(http: Http, path: string, key: string, body: unknown): T {
  if (typeof record(body)?.[key] !== 'string') throw wrongShape(http, path, `no ${key}`);
  return body as T;
}

/** What answers does not have the shape that this command knows. */
export function wrongShape(http: Http, path: string, problem: string): CommandFailure {
  return notOurs(http.url, `${path}: ${problem}`);
}
