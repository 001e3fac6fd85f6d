// Whoever refused is left alone for a moment, twice as long each time in a row: while beliefs differ there is no hot loop,
// and a request does not use up its dispatches on one runner or node that cannot. Pure.

const RUNNER_MS = 200;
const NODE_MS = 1_000;
const CAP_MS = 30_000;

/** What remembers refusals: `times` in a row, nothing is asked before `until` (monotonic ms). */
export interface Shyness {
  times: number;
  until: number;
}

export const notShy: Shyness = { times: 0, until: 0 };

export function afterRefusal(before: Shyness, who: 'runner' | 'node', now: number): Shyness {
  const firstMs = who === 'runner' ? RUNNER_MS : NODE_MS;
  // Refusals of things that were asked together are one.
  if (before.until > now) return before;
  const times = before.times + 1;
  return { times, until: now + Math.min(CAP_MS, firstMs * 2 ** Math.min(before.times, 20)) };
}
