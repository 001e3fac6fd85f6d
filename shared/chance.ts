// Chance as an argument, for the same reason as clock.ts: a test or a simulation that owns the seed can
// replay what happened. The reason given with each draw makes a divergence readable.
import { randomBytes } from 'node:crypto';

export interface Chance {
  /** `sizeBytes` unpredictable bytes. `reason` names the use, e.g. `request id`. */
  bytes(sizeBytes: number, reason: string): Uint8Array;
  /** A number in [0, 1), for jitter and ties; never for secrets. */
  fraction(reason: string): number;
}

/** Drawn at once, handed out in slices: a system call for each id is a visible part of a short request. */
const POOL_BYTES = 4_096;

class SystemChance implements Chance {
  #pool = Buffer.alloc(0);

  bytes(sizeBytes: number): Uint8Array {
    return sizeBytes > POOL_BYTES / 4 ? randomBytes(sizeBytes) : this.#take(sizeBytes);
  }

  fraction(): number {
    return this.#take(4).readUInt32LE() / 2 ** 32;
  }

  /** No byte is handed out twice. */
  #take(sizeBytes: number): Buffer {
    if (this.#pool.byteLength < sizeBytes) this.#pool = randomBytes(POOL_BYTES);
    const taken = this.#pool.subarray(0, sizeBytes);
    this.#pool = this.#pool.subarray(sizeBytes);
    return taken;
  }
}

/** The machine's own randomness, fit for secrets. */
export const systemChance: Chance = new SystemChance();

/** Repeatable randomness for tests and simulations (mulberry32): the same seed gives the same draws. */
export function seededChance(seed: number): Chance {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    bytes: (sizeBytes) => Uint8Array.from({ length: sizeBytes }, () => Math.floor(next() * 256)),
    fraction: next,
  };
}
