// One try of a direct call at an agent: `http://<address>/runners/<id>/http/<path>`, streamed both ways. This is the hot
// path of direct calls, so it sits on undici's dispatcher and hands bytes straight from socket to socket.
//
// U1  It settles exactly once: `answered` when the caller has all that it will get, `refused` when the agent began
//     nothing and the caller has got nothing, so that another runner may be asked.
// U2  A slow caller pauses the agent's socket, a slow agent pauses the caller's: nothing is buffered in between.
// U3  A response that breaks after its head is broken off towards the caller too, never ended as if whole.
import { Pool, errors, type Dispatcher } from 'undici';
import type { Clock, Timer } from '../../shared/clock.ts';
import {
  Failure,
  failures,
  isFailureCode,
  systemCode,
  type FailureCode,
} from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { Answers } from '../core/act.ts';
import { falError } from './error-body.ts';
import { respond, type Exchange } from './exchange.ts';
import { mayGoToCaller } from './forward-headers.ts';

export type CallGrant = Exclude<Answers['call'], { refused: FailureCode }>;

export type TryEnd =
  | { end: 'answered'; status: number; failure?: FailureCode }
  | { end: 'refused'; code: FailureCode };

export interface TryOrder {
  grant: CallGrant;
  method: string;
  /** Path and query at the app, as they came. */
  path: string;
  headers: string[];
  body: Uint8Array | AsyncIterable<Uint8Array> | null;
  requestId: string;
}

/** What the agent is given beyond its own time limit before we break the call off ourselves. */
const AGENT_SLACK_MS = 5_000;
const MOST_POOLS = 4_096;

/** Connections to agents, kept alive, by address. */
export class Upstreams {
  readonly #clock: Clock;
  readonly #pools = new Map<string, Pool>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  send(x: Exchange, order: TryOrder): Promise<TryEnd> {
    return new Promise((resolve) => {
      const call = new Try(x, order, this.#clock, resolve);
      const { grant } = order;
      this.#poolOf(grant.address).dispatch(
        {
          path: `/runners/${grant.runnerId}/http${order.path}`,
          // Any method that Node's parser took; undici checks it again.
          method: order.method as Dispatcher.HttpMethod,
          headers: order.headers,
          // Undici takes any async iterable, its declarations only some of them.
          body: order.body as Uint8Array | null,
        },
        call,
      );
    });
  }

  async close(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map((pool) => pool.destroy()));
  }

  #poolOf(address: string): Pool {
    const known = this.#pools.get(address);
    if (known) return known;
    const [oldest] = this.#pools.keys();
    if (this.#pools.size >= MOST_POOLS && oldest !== undefined) {
      void this.#pools.get(oldest)?.close();
      this.#pools.delete(oldest);
    }
    const pool = new Pool(`http://${address}`, {
      // How long an app may think is the app's own setting; silence is bounded by the call's deadline.
      headersTimeout: 0,
      bodyTimeout: 0,
      connectTimeout: 5_000,
      maxHeaderSize: limits.headerBytes,
      pipelining: 1,
      allowH2: false,
    });
    this.#pools.set(address, pool);
    return pool;
  }
}

class Try implements Dispatcher.DispatchHandler {
  readonly #x: Exchange;
  readonly #order: TryOrder;
  readonly #deadline: Timer;
  readonly #settle: (end: TryEnd) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #state:
    | { at: 'asking' }
    | { at: 'refused'; code: FailureCode }
    | { at: 'failed'; code: FailureCode }
    | { at: 'streaming'; status: number }
    | { at: 'settled' } = { at: 'asking' };

  constructor(x: Exchange, order: TryOrder, clock: Clock, settle: (end: TryEnd) => void) {
    this.#x = x;
    this.#order = order;
    this.#settle = settle;
    this.#deadline = clock.after(order.grant.requestTimeoutMs + AGENT_SLACK_MS, this.#onDeadline);
    x.res.on('close', this.#onCallerClose);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#x.res.destroyed) controller.abort(callerGone());
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (status < 200 || this.#state.at !== 'asking') return;
    const refused = headers['x-runmesh-refused'];
    const failed = headers['x-runmesh-failure'];
    if (refused !== undefined)
      this.#state = { at: 'refused', code: codeOf(refused, 'RUNNER_GONE') };
    else if (failed !== undefined)
      this.#state = { at: 'failed', code: codeOf(failed, 'RUNNER_CONNECTION') };
    else {
      this.#state = { at: 'streaming', status };
      this.#x.res.writeHead(status, this.#headersForCaller(status, controller.rawHeaders));
    }
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#state.at !== 'streaming' || this.#x.res.write(chunk)) return;
    controller.pause();
    this.#x.res.once('drain', () => controller.resume());
  }

  onResponseEnd(): void {
    const state = this.#state;
    if (state.at === 'refused') return this.#finish({ end: 'refused', code: state.code });
    if (state.at === 'failed') return this.#fail(state.code, failures[state.code].doc);
    if (state.at !== 'streaming') return;
    this.#x.res.end();
    this.#finish({ end: 'answered', status: state.status });
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    const state = this.#state;
    if (state.at === 'settled') return;
    if (state.at === 'refused') return this.#finish({ end: 'refused', code: state.code });
    const code = failureCodeOf(error);
    // No connection came about: nothing was begun there.
    if (state.at === 'asking' && isConnectError(error))
      return this.#finish({ end: 'refused', code: 'RUNNER_CONNECTION' });
    this.#fail(code, error instanceof Failure ? error.message : failures[code].doc);
  }

  #fail(code: FailureCode, message: string): void {
    const { res } = this.#x;
    const answer = falError(code, message);
    if (res.headersSent) res.destroy();
    else if (!res.destroyed) {
      const { runnerId } = this.#order.grant;
      const ids = ['x-fal-request-id', this.#order.requestId, 'x-fal-served-from', runnerId];
      respond(this.#x, answer.status, [...answer.headers, ...ids], answer.body);
    }
    this.#finish({ end: 'answered', status: answer.status, failure: code });
  }

  #finish(end: TryEnd): void {
    if (this.#state.at === 'settled') return;
    this.#state = { at: 'settled' };
    this.#deadline.cancel();
    this.#x.res.off('close', this.#onCallerClose);
    this.#settle(end);
  }

  /** The app's headers, ours behind them. */
  #headersForCaller(status: number, raw: unknown): string[] {
    const flat: string[] = [];
    const list: unknown[] = Array.isArray(raw) ? raw : [];
    for (let at = 0; at + 1 < list.length; at += 2) {
      const name = latin1(list[at]).toLowerCase();
      if (mayGoToCaller(name, status)) flat.push(name, latin1(list[at + 1]));
    }
    flat.push('x-fal-request-id', this.#order.requestId);
    flat.push('x-fal-served-from', this.#order.grant.runnerId, ...this.#x.cors);
    if (!this.#x.req.complete) flat.push('connection', 'close');
    return flat;
  }

  readonly #onCallerClose = (): void => {
    if (this.#state.at === 'settled') return;
    this.#abort(callerGone());
  };

  readonly #onDeadline = (): void => {
    this.#abort(new Failure('REQUEST_TIMEOUT', 'Request timed out'));
  };

  #abort(failure: Failure): void {
    if (this.#controller) this.#controller.abort(failure);
    // Not yet sent: what undici calls later finds it settled, and `onRequestStart` aborts it.
    else this.#fail(failure.code, failure.message);
  }
}

function callerGone(): Failure {
  return new Failure('CLIENT_DISCONNECTED', 'the caller closed the connection');
}

function latin1(value: unknown): string {
  return Buffer.isBuffer(value) ? value.toString('latin1') : String(value);
}

function codeOf(header: string | string[], fallback: FailureCode): FailureCode {
  return typeof header === 'string' && isFailureCode(header) ? header : fallback;
}

function failureCodeOf(error: Error): FailureCode {
  if (error instanceof Failure) return error.code;
  if (error instanceof errors.HeadersOverflowError) return 'RUNNER_RESPONSE_TOO_LARGE';
  if (error instanceof errors.ResponseContentLengthMismatchError) return 'RUNNER_INCOMPLETE';
  if (error instanceof errors.InvalidArgumentError) return 'INPUT_INVALID';
  return 'RUNNER_DISCONNECTED';
}

function isConnectError(error: Error): boolean {
  if (error instanceof errors.ConnectTimeoutError) return true;
  const code = systemCode(error);
  return code === 'ECONNREFUSED' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH';
}
