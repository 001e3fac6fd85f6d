// FAILURE_DELAY: runners of an app whose starts fail wait before the next start, 30 s more for each failure in a row, at
// most 10 minutes; any success wakes all and starts again at zero (mission: Startup Failure). Pure.
import type { FailureCode } from '../../shared/failure.ts';

export interface StartFailures {
  /** In a row. */
  count: number;
  /** Monotonic ms of the last. */
  lastAt: number;
  /** What was wrong with the last, for people. */
  last?: { code: FailureCode; message: string };
}

export const noFailures: StartFailures = { count: 0, lastAt: 0 };

const STEP_MS = 30_000;
const CAP_MS = 600_000;

export function afterFailure(
  failures: StartFailures,
  last: { code: FailureCode; message: string },
  now: number,
): StartFailures {
  return { count: failures.count + 1, lastAt: now, last };
}

/** Monotonic ms before which no runner of the app may start; undefined: at once. */
export function startNotBefore(failures: StartFailures): number | undefined {
  if (failures.count === 0) return undefined;
  return failures.lastAt + Math.min(CAP_MS, failures.count * STEP_MS);
}
