// The queue as callers see it (fal-contract §2): submit, status, status stream, result, cancel. Nothing here decides:
// a submit becomes one command, everything else reads what is durable.
import type { Chance } from '../../shared/chance.ts';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { newRequestId, type RequestId } from '../../shared/ids.ts';
import type { Log } from '../../shared/log.ts';
import { limits } from '../../shared/limits.ts';
import type { PayloadStore } from '../payload/payload-store.ts';
import type { RequestRecord, Terminal } from '../store/records.ts';
import { queryForApp, steeringOf, wantsLogs } from './call-headers.ts';
import { parseEndpoint, parseQueueTarget, type Endpoint, type QueueTarget } from './endpoint-id.ts';
import { falError } from './error-body.ts';
import { failFal, pour, respond, respondJson, type Exchange } from './exchange.ts';
import { headersToKeep, mayGoToCaller } from './forward-headers.ts';
import type { Metrics } from './metrics.ts';
import type { CoordinatorPort } from './port.ts';
import { statusAnswer, urlsOf } from './queue-status.ts';
import { receiveBody } from './request-body.ts';
import { StatusStreams } from './status-stream.ts';

export interface QueueParts {
  port: CoordinatorPort;
  payloads: PayloadStore;
  clock: Clock;
  chance: Chance;
  log: Log;
  metrics: Metrics;
  /** Where the queue is for the caller of this exchange, without a slash at the end. */
  baseOf: (x: Exchange) => string;
}

export class QueueRoutes {
  readonly #parts: QueueParts;
  readonly #streams: StatusStreams;

  constructor(parts: QueueParts) {
    this.#parts = parts;
    this.#streams = new StatusStreams(parts.port, parts.clock);
  }

  async handle(x: Exchange): Promise<void> {
    const endpoint = parseEndpoint(x.target);
    const target = endpoint && parseQueueTarget(x.req.method ?? '', endpoint);
    const id = target?.kind === 'request' ? target.id : this.#freshId();
    try {
      if (!target) throw new Failure('NOT_FOUND', `no app at ${x.target.slice(0, 200)}`);
      if (target.kind === 'request') await this.#onRequest(x, target);
      else if (target.kind === 'submit') await this.#submit(x, target.endpoint);
      else respondJson(x, 404, id, { status: 'NOT_FOUND', detail: 'Request not found' });
    } catch (thrown) {
      const failure = failFal(x, id, thrown);
      if (failure.code === 'INTERNAL')
        this.#parts.log.error('a queue route failed', { cause: failure, target: x.target });
    }
  }

  async #submit(x: Exchange, endpoint: Endpoint): Promise<void> {
    const { req } = x;
    if (req.method !== 'POST')
      return respond(x, 405, ['allow', 'POST', 'content-type', 'application/json'], METHOD_DETAIL);
    const steering = steeringOf(req, endpoint.query);
    const headers = headersToKeep(req.rawHeaders, req.headers.connection);
    if (headers.length > limits.headersPerMessage)
      throw new Failure(
        'INPUT_TOO_LARGE',
        `a request may have ${limits.headersPerMessage} headers`,
      );
    const input = await receiveBody(req, this.#parts.payloads, this.#parts.clock);
    const { app, path } = endpoint;
    const query = queryForApp(endpoint.query);
    const fields = { app, method: 'POST', path, query, headers, input, ...steering };
    const answer = await this.#parts.port.ask('submit', fields);
    if ('refused' in answer) throw refusal(answer.refused, answer.message, app);
    this.#parts.metrics.submitted(app);
    respondJson(x, 200, answer.requestId, {
      status: 'IN_QUEUE',
      request_id: answer.requestId,
      gateway_request_id: answer.requestId,
      ...urlsOf(this.#parts.baseOf(x), app, answer.requestId),
      queue_position: answer.position,
    });
  }

  async #onRequest(x: Exchange, target: QueueTarget & { kind: 'request' }): Promise<void> {
    const method = x.req.method;
    const wanted = target.verb === 'cancel' ? 'PUT' : 'GET';
    // A POST asks to cancel as well: browsers' simple tools know no PUT.
    if (method !== wanted && !(method === 'POST' && wanted === 'PUT'))
      return respond(x, 405, ['allow', wanted, 'content-type', 'application/json'], METHOD_DETAIL);
    const { id, endpoint } = target;
    if (target.verb === 'cancel') return this.#cancel(x, id, endpoint.app);
    const logs = wantsLogs(endpoint.query);
    const base = this.#parts.baseOf(x);
    if (target.verb === 'stream')
      return this.#streams.serve(x, id, endpoint.app, base, logs).catch(asNotFound(x, id));
    const record = await this.#parts.port.readRequest(id);
    if (record?.app !== endpoint.app) return notFound(x, id);
    if (target.verb === 'result') return this.#result(x, record);
    const { httpStatus, body } = await statusAnswer(this.#parts.port, record, base, logs);
    respondJson(x, httpStatus, id, body);
  }

  async #result(x: Exchange, record: RequestRecord): Promise<void> {
    if (record.state.kind !== 'done')
      return respondJson(x, 400, record.id, { detail: 'Request is still in progress' });
    const { end } = record.state;
    const headers = ['x-fal-request-id', record.id];
    if (end.runnerId) headers.push('x-fal-served-from', end.runnerId);
    if (end.failure) {
      const error = falError(end.failure.code, end.failure.message);
      return respond(x, error.status, [...error.headers, ...headers], error.body);
    }
    const bytes = await this.#parts.port.openOutput(record.id, end);
    x.res.writeHead(end.status, [...appHeaders(end), ...headers, ...x.cors]);
    await pour(x, bytes);
  }

  async #cancel(x: Exchange, id: RequestId, app: string): Promise<void> {
    const answer = await this.#parts.port.ask('cancel', { requestId: id, app });
    if (answer === 'not_found') return notFound(x, id);
    const [status, word] =
      answer === 'requested' ? [202, 'CANCELLATION_REQUESTED'] : [400, 'ALREADY_COMPLETED'];
    respondJson(x, status, id, { status: word });
  }

  #freshId(): RequestId {
    return newRequestId(this.#parts.clock.now(), 0, this.#parts.chance);
  }
}

const METHOD_DETAIL = JSON.stringify({ detail: 'Method Not Allowed', error_type: 'bad_request' });

function notFound(x: Exchange, id: RequestId): void {
  respondJson(x, 404, id, { status: 'NOT_FOUND', detail: 'Request not found' });
}

function asNotFound(x: Exchange, id: RequestId): (thrown: unknown) => void {
  return (thrown) => {
    if (!(thrown instanceof Failure) || thrown.code !== 'NOT_FOUND') throw thrown;
    if (x.res.headersSent) x.res.destroy();
    else notFound(x, id);
  };
}

function refusal(code: Failure['code'], message: string, app: string): Failure {
  return new Failure(code, code === 'NOT_FOUND' ? `Application "${app}" not found` : message);
}

/** The app's own headers with the length of the kept body, flat. */
function appHeaders(end: Terminal): string[] {
  const flat: string[] = [];
  for (const [name, value] of end.headers) {
    const lower = name.toLowerCase();
    if (lower !== 'content-length' && mayGoToCaller(lower, end.status)) flat.push(lower, value);
  }
  if (end.status !== 204 && end.status !== 304)
    flat.push('content-length', String(end.body.sizeBytes));
  return flat;
}
