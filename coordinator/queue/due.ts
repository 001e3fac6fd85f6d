// What the passing of time does to a request: a retry is due, or its start timeout ran out (Q6). The timeout ends a request
// only while nobody executes it.
import type { EventOf } from '../core/event.ts';
import type { Turn } from '../core/turn.ts';
import { partitionOfRequest } from '../../shared/ids.ts';
import { keys } from '../store/keys.ts';
import { failRequest, revokeFlight } from './finish.ts';
import { makeReady } from './flight.ts';

export function due(turn: Turn, event: EventOf<'due'>): void {
  const record = turn.request(event.requestId);
  if (!record || record.state.kind === 'done') return;
  if (event.kind === 'retry') {
    if (record.state.kind !== 'waiting') return;
    turn.delete(partitionOfRequest(record.id), keys.due(record.id, 'retry'), 'soft');
    return makeReady(turn, record);
  }
  if (record.state.kind === 'flight' && record.state.flight.startedAt !== undefined) return;
  revokeFlight(turn, record);
  failRequest(turn, record, {
    code: 'START_TIMEOUT',
    message: 'Request timed out before it was started',
  });
}
