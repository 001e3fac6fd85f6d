// A clock that stands still until a test moves it. Wall and monotonic time move together, and apart when told to.
import type { Clock, Timer } from '../../shared/clock.ts';

export class ManualClock implements Clock {
  #wall: number;
  #elapsed = 0;
  #timers: { at: number; fire: () => void }[] = [];

  constructor(wall = 1_790_000_000_000) {
    this.#wall = wall;
  }

  now(): number {
    return this.#wall;
  }

  elapsed(): number {
    return this.#elapsed;
  }

  after(delayMs: number, fire: () => void): Timer {
    const timer = { at: this.#elapsed + Math.max(0, delayMs), fire };
    this.#timers.push(timer);
    return { cancel: () => (this.#timers = this.#timers.filter((one) => one !== timer)) };
  }

  /** Moves on, firing what falls due in order; each timer sees its own time. */
  move(byMs: number): void {
    const until = this.#elapsed + byMs;
    for (;;) {
      const next = this.#timers.filter((one) => one.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#timers = this.#timers.filter((one) => one !== next);
      this.#step(Math.max(this.#elapsed, next.at));
      next.fire();
    }
    this.#step(until);
  }

  /** Makes wall time jump while monotonic time stands. */
  jumpWall(byMs: number): void {
    this.#wall += byMs;
  }

  #step(elapsed: number): void {
    this.#wall += elapsed - this.#elapsed;
    this.#elapsed = elapsed;
  }
}
