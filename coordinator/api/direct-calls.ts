// Direct calls: any method and sub-path, streamed caller → agent → runner and back. No queue, no durability; the call
// waits for a slot like everybody else and holds it until it is over.
//
// D1  The core hears `callEnded` exactly once for each call id that was asked for (S5), whatever came of it: at the end
//     of the try, when the caller goes away while it waits, when it was refused or asking failed.
// D2  Another runner is asked only when the agent refused before it began and the body can be sent again: it is in
//     memory, or nothing of it was sent yet. At most `limits.callTries` runners are asked.
// D3  Every answer carries x-fal-request-id, also ours.
import type { Chance } from '../../shared/chance.ts';
import type { Clock } from '../../shared/clock.ts';
import { Failure, failures, type FailureCode } from '../../shared/failure.ts';
import { newRequestId, type RequestId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import type { CallId } from '../core/event.ts';
import { startTimeoutMs } from './call-headers.ts';
import { parseEndpoint, type Endpoint } from './endpoint-id.ts';
import { failFal, headerOf, type Exchange } from './exchange.ts';
import { headersForApp } from './forward-headers.ts';
import type { Metrics } from './metrics.ts';
import type { CoordinatorPort } from './port.ts';
import { checkDeclared, readSmallBody, streamBody } from './request-body.ts';
import { Upstreams, type CallGrant, type TryEnd } from './upstream.ts';

export interface DirectParts {
  port: CoordinatorPort;
  clock: Clock;
  chance: Chance;
  log: Log;
  metrics: Metrics;
}

/** A body that is sent on as it comes; `sent` tells whether any of it went out. */
interface Streamed {
  stream: AsyncIterable<Uint8Array>;
  sent: boolean;
}

type CallBody =
  { kind: 'none' } | { kind: 'memory'; bytes: Uint8Array } | { kind: 'stream'; streamed: Streamed };

export class DirectCalls {
  readonly #parts: DirectParts;
  readonly #upstreams: Upstreams;

  constructor(parts: DirectParts) {
    this.#parts = parts;
    this.#upstreams = new Upstreams(parts.clock);
  }

  async handle(x: Exchange): Promise<void> {
    const { clock, chance, log } = this.#parts;
    const requestId = newRequestId(clock.now(), 0, chance);
    try {
      const endpoint = parseEndpoint(x.target);
      if (!endpoint) throw new Failure('NOT_FOUND', `no app at ${x.target.slice(0, 200)}`);
      const end = await this.#call(x, endpoint, requestId);
      this.#parts.metrics.called(endpoint.app, end.status);
      if (end.failure)
        log.event('call.finished', { requestId, app: endpoint.app, failure: end.failure });
    } catch (thrown) {
      const failure = failFal(x, requestId, thrown);
      if (failure.code === 'INTERNAL') log.error('a direct call failed', { cause: failure });
    }
  }

  async close(): Promise<void> {
    await this.#upstreams.close();
  }

  async #call(
    x: Exchange,
    endpoint: Endpoint,
    requestId: RequestId,
  ): Promise<TryEnd & { end: 'answered' }> {
    const timeout = startTimeoutMs(x.req);
    const body = await this.#bodyOf(x);
    const headers = headersForApp(x.req.rawHeaders, x.req.headers.connection);
    if (body.kind === 'stream') pushLength(headers, x);
    headers.push('x-fal-request-id', requestId, 'x-fal-endpoint', endpoint.app + endpoint.path);
    for (let tries = 1; ; tries += 1) {
      const { callId, grant } = await this.#slot(x, endpoint.app, timeout);
      const end = await this.#try(x, endpoint, requestId, headers, body, callId, grant);
      if (end.end === 'answered') return end;
      if (tries >= limits.callTries || !canBeSentAgain(body))
        throw new Failure(callerCode(end.code), 'No runner took the call');
    }
  }

  async #try(
    x: Exchange,
    endpoint: Endpoint,
    requestId: RequestId,
    headers: readonly string[],
    body: CallBody,
    callId: CallId,
    grant: CallGrant,
  ): Promise<TryEnd> {
    let refused = false;
    try {
      const end = await this.#upstreams.send(x, {
        grant,
        method: x.req.method ?? 'GET',
        path: endpoint.path + endpoint.query,
        headers: [
          ...headers,
          'x-runmesh-lease',
          grant.lease,
          'x-runmesh-timeout-ms',
          String(grant.requestTimeoutMs),
        ],
        body: bodyToSend(body),
        requestId,
      });
      refused = end.end === 'refused';
      return end;
    } finally {
      this.#parts.port.callEnded(callId, refused);
    }
  }

  /** Waits for a slot. A caller that goes away meanwhile gives it back, whenever it comes (D1). */
  async #slot(
    x: Exchange,
    app: string,
    timeoutMs: number | undefined,
  ): Promise<{ callId: CallId; grant: CallGrant }> {
    const { port } = this.#parts;
    const callId = port.newCallId();
    let ended = false;
    const end = (): void => {
      if (!ended) port.callEnded(callId);
      ended = true;
    };
    if (x.res.destroyed) throw gone();
    x.res.on('close', end);
    try {
      const answer = await port.ask('call', {
        callId,
        app,
        ...(timeoutMs === undefined ? {} : { startTimeoutMs: timeoutMs }),
      });
      if (ended) throw gone();
      if ('refused' in answer) throw refusal(answer.refused, answer.message, app);
      return { callId, grant: answer };
    } catch (thrown) {
      end();
      throw thrown;
    } finally {
      x.res.off('close', end);
    }
  }

  async #bodyOf(x: Exchange): Promise<CallBody> {
    const { req } = x;
    const declared = headerOf(req, 'content-length');
    const chunked = headerOf(req, 'transfer-encoding') !== undefined;
    if (!chunked && (declared === undefined || declared === '0')) return { kind: 'none' };
    checkDeclared(req, limits.inputBytes);
    if (!chunked && Number(declared) <= limits.inlineBytes)
      return {
        kind: 'memory',
        bytes: await readSmallBody(req, limits.inlineBytes, this.#parts.clock),
      };
    const streamed: Streamed = { stream: streamBody(req, this.#parts.clock), sent: false };
    return { kind: 'stream', streamed };
  }
}

/** A refusal between agent and us that says nothing to the caller (a lease that ended) is a lost connection to him. */
function callerCode(code: FailureCode): FailureCode {
  return failures[code].retry === 'elsewhere' ? code : 'RUNNER_CONNECTION';
}

function bodyToSend(body: CallBody): Uint8Array | AsyncIterable<Uint8Array> | null {
  if (body.kind === 'none') return null;
  return body.kind === 'memory' ? body.bytes : sending(body.streamed);
}

/** Marks the body as sent with its first chunk, and keeps it open for another try until then. */
async function* sending(streamed: Streamed): AsyncGenerator<Uint8Array> {
  let sizeBytes = 0;
  streamed.sent = true;
  for await (const chunk of streamed.stream) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > limits.inputBytes)
      throw new Failure('INPUT_TOO_LARGE', `the body may have ${limits.inputBytes} bytes`);
    yield chunk;
  }
}

function canBeSentAgain(body: CallBody): boolean {
  return body.kind !== 'stream' || !body.streamed.sent;
}

/** A streamed body of known length keeps it; else it goes in chunks. */
function pushLength(headers: string[], x: Exchange): void {
  const declared = headerOf(x.req, 'content-length');
  if (declared !== undefined) headers.push('content-length', declared);
}

function gone(): Failure {
  return new Failure('CLIENT_DISCONNECTED', 'the caller went away while it waited for a runner');
}

function refusal(code: FailureCode, message: string, app: string): Failure {
  return new Failure(code, code === 'NOT_FOUND' ? `Application "${app}" not found` : message);
}
