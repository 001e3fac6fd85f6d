// Who has which slot. Queued attempts and direct calls take from the same slots, and the agent has the last word (D1).
// Free of I/O and time.
//   S5  In-flight is a set of leases, never a counter: taking or giving back the same one twice changes nothing.
import type { RunnerId } from '../../shared/ids.ts';

export type TakeRefusal = 'RUNNER_GONE' | 'SLOTS_FULL' | 'NODE_DRAINING';
export type Take = { kind: 'ok' } | { kind: 'refused'; code: TakeRefusal; reason: string };

interface Seats {
  slots: number;
  leases: Set<string>;
  /** Takes no new leases; what runs may end. */
  draining: boolean;
  /** Called once, when a draining runner has no lease left. */
  onEmpty: (() => void) | undefined;
}

export interface PoolWatch {
  /** The runner went from unused to used, or back. */
  used(runnerId: RunnerId, isUsed: boolean): void;
}

export class Pool {
  readonly #runners = new Map<RunnerId, Seats>();
  readonly #watch: PoolWatch;
  #closed = false;

  constructor(watch: PoolWatch) {
    this.#watch = watch;
  }

  /** The runner is ready and has this many slots. */
  open(runnerId: RunnerId, slots: number): void {
    if (this.#runners.has(runnerId)) return;
    this.#runners.set(runnerId, { slots, leases: new Set(), draining: false, onEmpty: undefined });
  }

  take(runnerId: RunnerId, lease: string): Take {
    const seats = this.#runners.get(runnerId);
    if (this.#closed) return refused('NODE_DRAINING', 'the agent is stopping');
    if (!seats) return refused('RUNNER_GONE', `runner ${runnerId} is not ready here`);
    if (seats.leases.has(lease)) return { kind: 'ok' };
    if (seats.draining) return refused('RUNNER_GONE', `runner ${runnerId} is draining`);
    if (seats.leases.size >= seats.slots)
      return refused('SLOTS_FULL', `all ${seats.slots} slots of runner ${runnerId} are taken`);
    seats.leases.add(lease);
    if (seats.leases.size === 1) this.#watch.used(runnerId, true);
    return { kind: 'ok' };
  }

  giveBack(runnerId: RunnerId, lease: string): void {
    const seats = this.#runners.get(runnerId);
    if (!seats?.leases.delete(lease) || seats.leases.size > 0) return;
    this.#watch.used(runnerId, false);
    if (seats.draining) seats.onEmpty?.();
  }

  /** No new leases; calls `onEmpty` once the last one is back, at once when there is none. */
  drain(runnerId: RunnerId, onEmpty: () => void): void {
    const seats = this.#runners.get(runnerId);
    if (!seats) return onEmpty();
    seats.draining = true;
    if (seats.leases.size === 0) onEmpty();
    else seats.onEmpty = onEmpty;
  }

  /** The runner is gone; leases on it mean nothing any more. */
  remove(runnerId: RunnerId): void {
    this.#runners.delete(runnerId);
  }

  /** The agent stops: nothing is taken any more. */
  close(): void {
    this.#closed = true;
  }

  get totals(): { slots: number; taken: number } {
    let [slots, taken] = [0, 0];
    for (const seats of this.#runners.values()) {
      slots += seats.slots;
      taken += seats.leases.size;
    }
    return { slots, taken };
  }
}

function refused(code: TakeRefusal, reason: string): Take {
  return { kind: 'refused', code, reason };
}
