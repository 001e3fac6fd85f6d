// The way back of a request that was taken from its queue for a runner, before anything was sent.
import type { Turn } from '../core/turn.ts';
import type { RequestId } from '../../shared/ids.ts';
import { releaseFlight } from './leases.ts';

/** Gives the slot of a reserved request back, and the request to its queue; its ready key was never taken away. */
export function putBack(turn: Turn, requestId: RequestId): void {
  const flight = turn.state.flights.get(requestId);
  if (flight?.hold.kind !== 'reserved') return;
  const { entry, priority } = flight.hold;
  releaseFlight(turn, requestId);
  turn.state.apps.get(flight.app)?.ready[priority].add(entry);
}
