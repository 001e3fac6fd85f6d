// The attempts of an agent that (again) says hello, against what is on disk: the ones that still count are kept, the ones that
// the agent no longer has run again uncharged, and the ones that nobody waits for are revoked (survival §2.6).
import { partitionOfRequest } from '../../shared/ids.ts';
import { takeSlot, releaseFlight } from '../dispatch/leases.ts';
import { currentFlight, tokenOf } from '../queue/current-flight.ts';
import { keys } from '../store/keys.ts';
import type { Flight, RequestRecord } from '../store/records.ts';
import type { EventOf } from './event.ts';
import type { Turn } from './turn.ts';

/** Tokens of attempts that must end. */
export function reconcileAttempts(turn: Turn, event: EventOf<'linkUp'>): string[] {
  const { nodeId, attempts: reported } = event.hello;
  const revoke: string[] = [];
  const there = new Set<string>();
  for (const { attempt, token } of event.attempts) {
    const finished = reported.some((one) => one.token === token && one.phase === 'finished');
    const record = turn.request(attempt.requestId);
    const flight = currentFlight(record, attempt);
    if (record && flight && flight.nodeId === nodeId) {
      there.add(record.id);
      keepFlight(turn, record, flight);
      // Its agent may not have heard of it.
      if (record.cancelRequestedAt !== undefined && !finished)
        turn.send(nodeId, { name: 'cancel', body: { token } });
    } else if (!finished) revoke.push(token);
  }
  for (const { requestId, hold } of [...turn.state.flights.values()]) {
    if (hold.kind !== 'sent' || hold.nodeId !== nodeId || there.has(requestId)) continue;
    const { epoch, number } = hold;
    turn.act({
      act: 'then',
      event: {
        type: 'requeue',
        requestId,
        attempt: { epoch, number },
        why: 'its agent came back without it',
      },
    });
  }
  return revoke;
}

/** The attempt goes on: it holds a slot of its runner again. */
function keepFlight(turn: Turn, record: RequestRecord, flight: Flight): void {
  const runner = turn.state.runners.get(flight.runnerId);
  const known = turn.state.flights.get(record.id);
  if (known?.hold.kind === 'reserved') releaseFlight(turn, record.id);
  const app = turn.state.apps.get(record.app);
  // One of an earlier life counts already and holds no slot.
  if (app && turn.state.flights.has(record.id))
    app.inFlight -= runner?.leases.has(record.id) ? 0 : 1;
  if (runner && !runner.leases.has(record.id)) takeSlot(turn, runner, record.id);
  else if (app && !runner) app.inFlight += 1;
  turn.state.flights.set(record.id, {
    requestId: record.id,
    app: record.app,
    runnerId: flight.runnerId,
    hold: {
      kind: 'sent',
      epoch: flight.epoch,
      number: flight.number,
      token: tokenOf(turn, record, flight),
      nodeId: flight.nodeId,
    },
  });
  turn.put(
    partitionOfRequest(record.id),
    keys.flight(record.id, flight.nodeId),
    flight.number,
    'soft',
  );
}
