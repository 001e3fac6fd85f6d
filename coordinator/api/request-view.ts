// A request for operators: everything about it but its payload.
import type { z } from 'zod';
import type { RequestRecord } from '../store/records.ts';
import type { CoordinatorPort } from './port.ts';
import { publicState } from './queue-status.ts';
import type { requestView } from './views.ts';

export type RequestView = z.input<typeof requestView>;

/** `why`: also ask the core where it stands in the queue and why it waits. */
export async function viewOfRequest(
  port: CoordinatorPort,
  record: RequestRecord,
  why: boolean,
): Promise<RequestView> {
  const { id, app, revision, priority, sequence, state } = record;
  const view: RequestView = {
    id,
    app,
    revision,
    status: publicState(record),
    state: state.kind,
    method: record.method,
    path: record.path,
    priority: priority === 0 ? 'normal' : 'low',
    submittedAt: record.submittedAt,
    attempts: record.attempts,
    dispatches: record.dispatches,
    inputBytes: record.input.sizeBytes,
  };
  if (record.cancelRequestedAt !== undefined) view.cancelRequestedAt = record.cancelRequestedAt;
  if (record.lastFailure) view.lastFailure = record.lastFailure;
  switch (state.kind) {
    case 'waiting':
      view.notBefore = state.notBefore;
      break;
    case 'flight':
      view.runnerId = state.flight.runnerId;
      view.nodeId = state.flight.nodeId;
      if (state.flight.startedAt !== undefined) view.startedAt = state.flight.startedAt;
      break;
    case 'done':
      addEnd(view, state.end);
      break;
    case 'ready':
      break;
  }
  if (why && (state.kind === 'ready' || state.kind === 'waiting')) {
    const ask = { app, priority, sequence, requestId: id };
    const { position, waiting } = await port.query('position', ask);
    view.position = position;
    view.waiting = waiting;
  }
  return view;
}

function addEnd(
  view: RequestView,
  end: Extract<RequestRecord['state'], { kind: 'done' }>['end'],
): void {
  view.endedAt = end.at;
  view.httpStatus = end.status;
  view.outputBytes = end.body.sizeBytes;
  if (end.durationMs !== undefined) {
    view.durationMs = end.durationMs;
    view.startedAt = Math.round(end.at - end.durationMs);
  }
  if (end.runnerId) view.runnerId = end.runnerId;
  if (end.nodeId) view.nodeId = end.nodeId;
  if (end.failure) view.failure = end.failure;
}
