// A direct call on its way through the agent: `ANY /runners/{id}/http/*` with a lease, streamed to the runner and back.
// The hot path: nothing is buffered, one undici dispatch a call, one pass over each list of headers.
//
//   H1  Refused before it began: `x-runmesh-refused: CODE`, and the coordinator may place it elsewhere.
//   H2  Failed after it began, before the app answered: `x-runmesh-failure: CODE`; after that the connection breaks,
//       so that a truncated response never looks whole.
//   H3  A caller that goes away, or runs out of time, makes one POST to `{path}/cancel` at the runner.
//   H4  The slot is given back once, when the response is through or the call broke.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import type { Clock } from '../../shared/clock.ts';
import { failures, systemCode, type FailureCode } from '../../shared/failure.ts';
import { formatHostPort, type HostPort } from '../../shared/host-port.ts';
import type { RunnerId } from '../../shared/ids.ts';
import { cancelAtRunner } from '../attempt/cancel.ts';
import type { Fleet } from '../runner/fleet.ts';
import type { Pool } from '../runner/pool.ts';
import { passedOn } from './hop-headers.ts';
import type { LeaseBook } from './lease-book.ts';

export interface DirectParts {
  clock: Clock;
  pool: Pool;
  fleet: Fleet;
  leases: LeaseBook;
  /** Connections to runners. */
  dispatcher: Dispatcher;
  /** Counts ended calls. */
  ended(how: 'answered' | 'refused' | 'failed'): void;
}

/** Serves one call; `path` is what the runner sees, with its query. */
export function directCall(
  parts: DirectParts,
  runnerId: RunnerId,
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { pool, fleet, leases } = parts;
  const refuse = (code: FailureCode, reason: string): void => {
    parts.ended('refused');
    answer(response, failures[code].status, 'x-runmesh-refused', code, reason); // H1
  };
  const use = leases.use(header(request, 'x-runmesh-lease'), runnerId);
  if (use.kind === 'refused') return refuse(use.code, use.reason);
  const lease = `direct:${use.leaseId}`;
  const taken = pool.take(runnerId, lease);
  if (taken.kind === 'refused') return refuse(taken.code, taken.reason);
  const runner = fleet.open(runnerId);
  if (!runner) {
    pool.giveBack(runnerId, lease);
    return refuse('RUNNER_GONE', `runner ${runnerId} is not here`);
  }
  new DirectCall(parts, request, response, runner.address, path, () =>
    pool.giveBack(runnerId, lease),
  ).begin();
}

class DirectCall implements Dispatcher.DispatchHandler {
  readonly #parts: DirectParts;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #address: HostPort;
  readonly #path: string;
  readonly #giveBack: () => void;
  #controller: Dispatcher.DispatchController | undefined;
  #timer: { cancel(): void } | undefined;
  /** Why we broke it off, before the runner's own error says so. */
  #broken: 'CLIENT_DISCONNECTED' | 'REQUEST_TIMEOUT' | undefined;
  #isOver = false;

  constructor(
    parts: DirectParts,
    request: IncomingMessage,
    response: ServerResponse,
    address: HostPort,
    path: string,
    giveBack: () => void,
  ) {
    this.#parts = parts;
    this.#request = request;
    this.#response = response;
    this.#address = address;
    this.#path = path;
    this.#giveBack = giveBack;
  }

  begin(): void {
    const { clock, dispatcher } = this.#parts;
    const request = this.#request;
    const timeoutMs = Number(header(request, 'x-runmesh-timeout-ms'));
    if (timeoutMs > 0)
      this.#timer = clock.after(timeoutMs, () => this.#breakOff('REQUEST_TIMEOUT'));
    this.#response.once('close', () => {
      if (!this.#response.writableFinished) this.#breakOff('CLIENT_DISCONNECTED');
    });
    try {
      dispatcher.dispatch(
        {
          origin: `http://${formatHostPort(this.#address)}`,
          path: this.#path,
          method: request.method ?? 'GET',
          headers: passedOn(request.rawHeaders),
          body: hasBody(request) ? request : null,
        },
        this,
      );
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#broken) controller.abort(new Error(this.#broken));
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: unknown,
    statusText?: string,
  ): void {
    if (status < 200) return;
    const headers = passedOn(textsOf(controller.rawHeaders));
    try {
      this.#response.writeHead(status, isPhrase(statusText) ? statusText : '', headers);
    } catch (thrown) {
      // A head that cannot be passed on: what is thrown from here would reach nobody, and keep the slot.
      controller.abort(new Error('the head of the response is malformed'));
      return this.#fail(thrown);
    }
    // The head of a stream must not wait for its first event; that of a body of known length goes out with it, in one write.
    if (!headers.some((name, at) => at % 2 === 0 && name.toLowerCase() === 'content-length'))
      this.#response.flushHeaders();
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#response.write(chunk)) return;
    controller.pause();
    this.#response.once('drain', () => controller.resume());
  }

  onResponseEnd(): void {
    this.#over('answered');
    this.#response.end();
  }

  onResponseError(_controller: unknown, thrown: Error): void {
    this.#fail(thrown);
  }

  #fail(thrown: unknown): void {
    if (this.#isOver) return;
    this.#over('failed');
    const response = this.#response;
    if (response.headersSent || response.destroyed) return void response.destroy(); // H2
    const code = this.#broken ?? codeOf(thrown);
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    answer(response, failures[code].status, 'x-runmesh-failure', code, reason);
  }

  #breakOff(why: 'CLIENT_DISCONNECTED' | 'REQUEST_TIMEOUT'): void {
    if (this.#isOver || this.#broken) return;
    this.#broken = why;
    this.#controller?.abort(new Error(failures[why].doc));
    const requestId = header(this.#request, 'x-fal-request-id') ?? '';
    const call = { address: this.#address, path: this.#path, requestId };
    void cancelAtRunner(call, this.#parts); // H3
  }

  #over(how: 'answered' | 'failed'): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#timer?.cancel();
    this.#giveBack(); // H4
    this.#parts.ended(how);
  }
}

/** A short JSON answer of ours, with its code in `field`. */
export function answer(
  response: ServerResponse,
  status: number,
  field: string,
  code: FailureCode,
  reason: string,
): void {
  const body = JSON.stringify({ code, detail: reason });
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    [field]: code,
    // What the caller still sends is not read.
    connection: 'close',
  });
  response.end(body);
}

function hasBody(request: IncomingMessage): boolean {
  const { headers } = request;
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** Whether it can stand in a status line; undici reads it as UTF-8, and it means nothing to anybody. */
function isPhrase(text: string | undefined): text is string {
  return text !== undefined && /^[\t\x20-\x7e\x80-\xff]*$/.test(text);
}

function textsOf(raw: Dispatcher.DispatchController['rawHeaders']): string[] {
  if (!Array.isArray(raw)) return [];
  return raw.map((part) => (typeof part === 'string' ? part : part.toString('latin1')));
}

function codeOf(thrown: unknown): FailureCode {
  const code = systemCode(thrown) ?? '';
  if (code === 'ECONNREFUSED') return 'RUNNER_REFUSED';
  if (code === 'UND_ERR_HEADERS_OVERFLOW') return 'RUNNER_RESPONSE_TOO_LARGE';
  if (code === 'UND_ERR_INVALID_ARG') return 'INPUT_INVALID';
  return 'RUNNER_CONNECTION';
}
