// When most nodes go at once it is we who are cut off, and their work goes on without us: then nothing is placed again
// until they are back, or have been away for long (DESIGN §7 Failure detection). Pure.

const LEAST_NODES = 3;
const PATIENCE = 5;

/**
 * Monotonic ms until which a node that had its time is still not given up; undefined: it is lost.
 *
 * @param gone nodes that are away and not given up, this one included @param linked nodes that are there
 */
export function heldUntil(
  view: { gone: number; linked: number; awaySince: number; lostMs: number },
  now: number,
): number | undefined {
  const { gone, linked, awaySince, lostMs } = view;
  const givenUpAt = awaySince + PATIENCE * lostMs;
  if (gone < LEAST_NODES || gone <= linked || now >= givenUpAt) return undefined;
  // Looked at again each lostMs: once most are back, the others are simply lost.
  return Math.min(givenUpAt, now + lostMs);
}
