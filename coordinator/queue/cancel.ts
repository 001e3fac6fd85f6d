// Cancel (fal-contract §2.8): what waits ends at once with 499; what runs is told, and ends as the app answers.
import type { EventOf } from '../core/event.ts';
import type { Turn } from '../core/turn.ts';
import { failRequest } from './finish.ts';
import { tokenOf } from './current-flight.ts';

export function cancel(turn: Turn, event: EventOf<'cancel'>): void {
  const record = turn.request(event.requestId);
  if (!record || record.app !== event.app) return turn.reply('cancel', event.replyTo, 'not_found');
  if (record.state.kind === 'done') return turn.reply('cancel', event.replyTo, 'already_completed');
  turn.record('request.cancelled', {
    request: record.id,
    app: record.app,
    state: record.state.kind,
  });
  if (record.state.kind === 'flight') {
    const { flight } = record.state;
    turn.putRequest({ ...record, cancelRequestedAt: record.cancelRequestedAt ?? turn.now }, 'sync');
    turn.send(flight.nodeId, { name: 'cancel', body: { token: tokenOf(turn, record, flight) } });
  } else failRequest(turn, record, { code: 'CLIENT_CANCELLED', message: 'Request was cancelled' });
  turn.reply('cancel', event.replyTo, 'requested');
}
