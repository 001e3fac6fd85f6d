// A GPU probe without GPUs, for tests and the simulator: answers what it is told to.
import type { Clock } from '../../shared/clock.ts';
import type { GpuProbe, GpuReading } from './gpu-probe.ts';
import { GpuReadings, type Seen } from './gpu-readings.ts';

export class MemoryGpuProbe implements GpuProbe {
  /** Looks taken so far. */
  looks = 0;
  #next: Seen | Promise<Seen>;
  readonly #readings: GpuReadings;

  constructor(clock: Clock, seen: Seen = { kind: 'none' }) {
    this.#next = seen;
    this.#readings = new GpuReadings(clock, async (signal) => {
      this.looks += 1;
      return Promise.race([closed(signal), this.#next]);
    });
  }

  /** What the looks from now on find. */
  show(seen: Seen | Promise<Seen>): void {
    this.#next = seen;
  }

  read(signal: AbortSignal): Promise<GpuReading> {
    return this.#readings.read(signal);
  }

  close(): void {
    this.#readings.close();
  }
}

function closed(signal: AbortSignal): Promise<Seen> {
  const stopping: Seen = { kind: 'no_answer', reason: 'the agent is stopping' };
  if (signal.aborted) return Promise.resolve(stopping);
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(stopping), { once: true });
  });
}
