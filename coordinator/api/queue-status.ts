// The public state of a queued request, as fal's clients read it. There are three states and no more: IN_QUEUE,
// IN_PROGRESS, COMPLETED; a request that failed or was cancelled is COMPLETED, and its result says what happened.
// Keys that clients insist on are always there: `queue_position` while queued, `logs` from then on, the three URLs.
//
// Logs of a request are not in this version: `logs` is an empty list when asked for, null when not.
import type { CoordinatorPort } from './port.ts';
import type { RequestRecord } from '../store/records.ts';
import { errorTypeOf } from './error-body.ts';

export type PublicState = 'IN_QUEUE' | 'IN_PROGRESS' | 'COMPLETED';

export interface RequestUrls {
  response_url: string;
  status_url: string;
  cancel_url: string;
}

export interface StatusAnswer {
  /** 202 until the request is COMPLETED: some clients look at nothing else. */
  httpStatus: 200 | 202;
  body: { status: PublicState; request_id: string } & RequestUrls & Record<string, unknown>;
}

/** `base` is where the queue is for this caller, e.g. `http://127.0.0.1:8800/queue`. */
export function urlsOf(base: string, app: string, id: string): RequestUrls {
  const response_url = `${base}/${app}/requests/${id}`;
  return {
    response_url,
    status_url: `${response_url}/status`,
    cancel_url: `${response_url}/cancel`,
  };
}

export function publicState(record: RequestRecord): PublicState {
  switch (record.state.kind) {
    case 'ready':
    case 'waiting':
      return 'IN_QUEUE';
    case 'flight':
      return record.state.flight.startedAt === undefined ? 'IN_QUEUE' : 'IN_PROGRESS';
    case 'done':
      return 'COMPLETED';
  }
}

export async function statusAnswer(
  port: CoordinatorPort,
  record: RequestRecord,
  base: string,
  logs: boolean,
): Promise<StatusAnswer> {
  const state = publicState(record);
  const urls = urlsOf(base, record.app, record.id);
  const shared = { status: state, request_id: record.id, ...urls };
  if (state === 'IN_QUEUE') {
    const queue_position = await positionOf(port, record);
    return { httpStatus: 202, body: { ...shared, queue_position } };
  }
  const lines = logs ? [] : null;
  if (record.state.kind !== 'done')
    return { httpStatus: 202, body: { ...shared, logs: lines, metrics: {} } };
  const { end } = record.state;
  const metrics = end.durationMs === undefined ? {} : { inference_time: end.durationMs / 1000 };
  const body = { ...shared, logs: lines, metrics };
  if (end.failure) {
    const error_type = errorTypeOf(end.failure.code);
    return { httpStatus: 200, body: { ...body, error: end.failure.message, error_type } };
  }
  if (end.status >= 400)
    return { httpStatus: 200, body: { ...body, error: `Invalid status code: ${end.status}` } };
  return { httpStatus: 200, body };
}

/** Requests ahead; one that is on its way to a runner has none. */
async function positionOf(port: CoordinatorPort, record: RequestRecord): Promise<number> {
  if (record.state.kind === 'flight') return 0;
  const { app, priority, sequence, id } = record;
  const { position } = await port.query('position', { app, priority, sequence, requestId: id });
  return position;
}
