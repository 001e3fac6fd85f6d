// How long to wait before try number n. Pure: the attempt count is the caller's, so a success resets it by
// starting again at zero (nothing here remembers).
import type { Chance } from './chance.ts';

export interface Backoff {
  baseMs: number;
  capMs: number;
}

/**
 * Full jitter: a uniform draw from [0, min(cap, base · 2^tries)]. `tries` counts the failures so far less one,
 * so the first retry passes 0.
 */
export function backoffMs(backoff: Backoff, tries: number, chance: Chance, reason: string): number {
  const ceilingMs = Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(tries, 40));
  return Math.round(ceilingMs * chance.fraction(reason));
}
