// Which runner takes the next request: pure. D1: only one that is ready and has a free slot. The one with the fewest in
// flight, so that requests do not slow each other; among equals the one used last, so that the others can go idle and end.
import type { RunnerId } from '../../shared/ids.ts';

export interface Candidate {
  id: RunnerId;
  slots: number;
  inFlight: number;
  /** Monotonic ms of its last lease. */
  usedAt: number;
}

export function chooseRunner<C extends Candidate>(candidates: Iterable<C>): C | undefined {
  let best: C | undefined;
  for (const one of candidates) {
    if (one.inFlight >= one.slots) continue;
    if (
      !best ||
      one.inFlight < best.inFlight ||
      (one.inFlight === best.inFlight && one.usedAt > best.usedAt)
    )
      best = one;
  }
  return best;
}
