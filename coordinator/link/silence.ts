// Whether the other side of a link is still there, from what was received when. Pure: time comes in as numbers.
//
// Two ways to be silent: nothing arrives from it, or what arrives shows that nothing of ours arrives there (a one-way
// break; its heartbeats echo an old number). Bytes count as a sign of life also before their frame is whole, so that a
// long frame over a slow line is no silence.

export type Hearing = 'heard' | 'suspect' | 'lost';

export interface SilenceTiming {
  suspectMs: number;
  lostMs: number;
}

export class Silence {
  readonly #timing: SilenceTiming;
  #heardAtMs: number;
  #bytesRead = 0;
  #sequence = 0;
  /** Our heartbeats that were not echoed, oldest first: at most one for each heartbeat within lostMs. */
  #unechoed: { sequence: number; sentAtMs: number }[] = [];
  /** How long ours have gone unheard, as the last heartbeat of the other side showed. */
  #deafMs = 0;

  constructor(timing: SilenceTiming, nowMs: number) {
    this.#timing = timing;
    this.#heardAtMs = nowMs;
  }

  /** The number of the heartbeat that is sent now. */
  beat(nowMs: number): number {
    this.#sequence += 1;
    this.#unechoed.push({ sequence: this.#sequence, sentAtMs: nowMs });
    return this.#sequence;
  }

  heard(nowMs: number): void {
    this.#heardAtMs = nowMs;
  }

  /** A heartbeat came, echoing `echo`. */
  heardBeat(nowMs: number, echo: number): void {
    this.#heardAtMs = nowMs;
    this.#unechoed = this.#unechoed.filter((sent) => sent.sequence > echo);
    const [oldest] = this.#unechoed;
    this.#deafMs = oldest === undefined ? 0 : nowMs - oldest.sentAtMs;
  }

  /** `bytesRead` of the socket so far. */
  judge(nowMs: number, bytesRead: number): Hearing {
    if (bytesRead !== this.#bytesRead) {
      this.#bytesRead = bytesRead;
      this.#heardAtMs = nowMs;
    }
    const silentMs = Math.max(nowMs - this.#heardAtMs, this.#deafMs);
    if (silentMs >= this.#timing.lostMs) return 'lost';
    return silentMs >= this.#timing.suspectMs ? 'suspect' : 'heard';
  }
}
