// The little statistics that the bench needs. Medians and extremes only: on a shared machine a mean is whoever disturbed it.

/** A middle and its spread. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** The value below which `share` (0…1) of the values lie: the nearest one that was measured. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1));
  const value = sorted[at];
  if (value === undefined) throw new Error('nothing was measured');
  return value;
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const high = sorted[Math.floor(sorted.length / 2)];
  const low = sorted[Math.ceil(sorted.length / 2) - 1];
  if (high === undefined || low === undefined) throw new Error('nothing was measured');
  return (high + low) / 2;
}

export function spread(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * Ours by the rival's. The median is that of the two medians; the spread is that of the rounds, each paired with its
 * neighbour in time.
 */
export function ratio(ours: readonly number[], rival: readonly number[]): Spread {
  const pairs = ours.map((value, at) => value / (rival[at] ?? Number.NaN));
  return { ...spread(pairs), median: median(ours) / median(rival) };
}
