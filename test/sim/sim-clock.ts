// Time of the simulation: it stands still until `step` fires the next timer. Timers of equal time fire in the order in which
// they were set.
import type { Clock, Timer } from '../../shared/clock.ts';

interface Entry {
  at: number;
  order: number;
  fire: (() => void) | undefined;
}

export class SimClock implements Clock {
  #elapsed = 0;
  #wallAhead = 1_790_000_000_000;
  #order = 0;
  /** Latest first, so that the next one is at the end. */
  readonly #timers: Entry[] = [];

  now(): number {
    return Math.floor(this.#elapsed) + this.#wallAhead;
  }

  elapsed(): number {
    return this.#elapsed;
  }

  after(delayMs: number, fire: () => void): Timer {
    const entry: Entry = { at: this.#elapsed + Math.max(0, delayMs), order: this.#order++, fire };
    let [from, to] = [0, this.#timers.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if ((this.#timers[middle]?.at ?? 0) > entry.at) from = middle + 1;
      else to = middle;
    }
    // Before all of equal time: those were set earlier and fire earlier.
    this.#timers.splice(from, 0, entry);
    return { cancel: () => (entry.fire = undefined) };
  }

  /** Fires the next timer; false when there is none until `limitMs`. */
  step(limitMs: number): boolean {
    for (let next = this.#timers.at(-1); next; next = this.#timers.at(-1)) {
      if (next.fire && next.at > limitMs) return false;
      this.#timers.pop();
      if (!next.fire) continue;
      this.#elapsed = Math.max(this.#elapsed, next.at);
      next.fire();
      return true;
    }
    return false;
  }
}
