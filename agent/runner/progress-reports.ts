// Progress of a runner's pull, told at most twice a second however often bytes arrive.
import type { Clock, Timer } from '../../shared/clock.ts';
import type { Progress } from './materials.ts';

const PAUSE_MS = 500;

export class ProgressReports {
  readonly #clock: Clock;
  readonly #say: () => void;
  #latest: Progress | undefined;
  #timer: Timer | undefined;
  #hasNews = false;

  constructor(clock: Clock, say: () => void) {
    this.#clock = clock;
    this.#say = say;
  }

  get latest(): Progress | undefined {
    return this.#latest;
  }

  add(progress: Progress): void {
    this.#latest = progress;
    this.#hasNews = true;
    if (this.#timer === undefined) this.#tell();
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #tell(): void {
    this.#timer = undefined;
    if (!this.#hasNews) return;
    this.#hasNews = false;
    this.#timer = this.#clock.after(PAUSE_MS, () => this.#tell());
    this.#say();
  }
}
