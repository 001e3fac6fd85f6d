// What every GPU probe does round its one look: shares it between callers, remembers the last good reading and since
// when there is none. P1, P2 of gpu-probe.ts live here, so that the in-memory probe cannot differ in them.
import type { Clock } from '../../shared/clock.ts';
import type { GpuReading, GpusSeen, NoGpus } from './gpu-probe.ts';

/** One look, before it is known how long there has been no answer. */
export type Seen = GpusSeen | NoGpus | { kind: 'no_answer'; reason: string };

export class GpuReadings {
  readonly #clock: Clock;
  readonly #look: (signal: AbortSignal) => Promise<Seen>;
  readonly #closing = new AbortController();
  #inFlight: Promise<GpuReading> | undefined;
  #lastGood: { reading: GpusSeen | NoGpus; atMs: number } | undefined;
  #silentSinceMs: number | undefined;

  constructor(clock: Clock, look: (signal: AbortSignal) => Promise<Seen>) {
    this.#clock = clock;
    this.#look = look;
  }

  async read(signal: AbortSignal): Promise<GpuReading> {
    signal.throwIfAborted();
    this.#inFlight ??= this.#lookOnce().finally(() => (this.#inFlight = undefined));
    return orAborted(this.#inFlight, signal);
  }

  close(): void {
    this.#closing.abort(new Error('the agent is stopping'));
  }

  async #lookOnce(): Promise<GpuReading> {
    const seen = await this.#look(this.#closing.signal);
    if (seen.kind !== 'no_answer') {
      this.#lastGood = { reading: seen, atMs: this.#clock.elapsed() };
      this.#silentSinceMs = undefined;
      return seen;
    }
    this.#silentSinceMs ??= this.#clock.now();
    const silence: GpuReading = {
      kind: 'no_answer',
      reason: seen.reason,
      sinceMs: this.#silentSinceMs,
    };
    if (this.#lastGood === undefined) return silence;
    const { reading, atMs } = this.#lastGood;
    return { ...silence, lastGood: { reading, ageMs: this.#clock.elapsed() - atMs } };
  }
}

function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
