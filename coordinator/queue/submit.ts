// Admission of a queued request. Q1: the reply leaves only after the record is synced to disk, and what is refused is
// refused before anything is written. When a slot is free and nobody is ahead, the same step dispatches it.
import type { Turn } from '../core/turn.ts';
import type { EventOf } from '../core/event.ts';
import { newRequestId, partitionOfApp } from '../../shared/ids.ts';
import { freeRunner } from '../dispatch/dispatch.ts';
import { queuedOf, type App } from '../state/app.ts';
import { keys } from '../store/keys.ts';
import type { RequestRecord } from '../store/records.ts';
import { sendFlight } from './flight.ts';

export function submit(turn: Turn, event: EventOf<'submit'>): void {
  const app = turn.state.apps.get(event.app);
  const refusal = refuse(app, event);
  if (!app || refusal) {
    turn.reply(
      'submit',
      event.replyTo,
      refusal ?? { refused: 'NOT_FOUND', message: 'no such app' },
    );
    return;
  }
  const partition = partitionOfApp(event.app);
  const id = newRequestId(turn.now, partition, turn.state.chance);
  app.sequence += 1;
  const record: RequestRecord = {
    id,
    app: event.app,
    revision: app.revision.revision,
    priority: event.priority,
    sequence: app.sequence,
    method: event.method,
    path: event.path,
    query: event.query,
    headers: event.headers,
    input:
      event.input.kind === 'inline'
        ? { kind: 'inline', sizeBytes: event.input.bytes.byteLength }
        : event.input,
    submittedAt: turn.now,
    ...(event.startTimeoutMs === undefined ? {} : { startTimeoutMs: event.startTimeoutMs }),
    noRetry: event.noRetry,
    attempts: 0,
    dispatches: 0,
    state: { kind: 'ready' },
  };
  turn.put(partition, keys.sequence(event.app), app.sequence, 'sync');
  if (event.input.kind === 'inline') turn.put(partition, keys.input(id), event.input.bytes, 'sync');
  if (event.startTimeoutMs !== undefined) {
    turn.put(partition, keys.due(id, 'start'), turn.now + event.startTimeoutMs, 'sync');
    turn.state.agenda.set(`start:${id}`, turn.elapsed + event.startTimeoutMs);
  }
  turn.record('request.submitted', { request: id, app: event.app, priority: event.priority });
  const position = queuedOf(app);
  const inline = event.input.kind === 'inline' ? event.input.bytes : undefined;
  const runner = nobodyAhead(app) ? freeRunner(turn, app, false) : undefined;
  if (runner)
    sendFlight(turn, runner, record, { durability: 'sync', ...(inline ? { inline } : {}) });
  else {
    turn.putRequest(record, 'sync');
    turn.put(partition, keys.ready(event.app, event.priority, record.sequence), id, 'sync');
    app.ready[event.priority].add({ sequence: record.sequence, requestId: id });
  }
  turn.reply('submit', event.replyTo, { requestId: id, position: runner ? 0 : position });
  turn.touch(event.app);
}

function refuse(
  app: App | undefined,
  event: EventOf<'submit'>,
): { refused: 'NOT_FOUND' | 'QUEUE_FULL'; message: string } | undefined {
  if (!app) return { refused: 'NOT_FOUND', message: `Application "${event.app}" not found` };
  const waiting = queuedOf(app);
  if (event.maxQueueLength !== undefined && waiting > event.maxQueueLength)
    return {
      refused: 'QUEUE_FULL',
      message: `${waiting} requests wait, the caller allows ${event.maxQueueLength}`,
    };
  return undefined;
}

function nobodyAhead(app: App): boolean {
  return queuedOf(app) === 0 && app.calls.length === 0;
}
