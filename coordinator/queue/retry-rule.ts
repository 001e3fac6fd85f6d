// THE retry rule (fal-contract §5): whether a failed attempt is followed by another, and how long from now. Pure.
// Q5: only attempts that the agent acknowledged count.
import type { AppSpec, RetryCondition } from '../../shared/app-spec.ts';
import { backoffMs } from '../../shared/backoff.ts';
import type { Chance } from '../../shared/chance.ts';
import type { FailureCode } from '../../shared/failure.ts';
import type { Outcome } from '../../shared/protocol.ts';
import type { RequestRecord } from '../store/records.ts';

/** Attempts in total, the first included. */
export const ATTEMPTS = 10;
/** Dispatches in total, also those that were refused or cut short: a request that nobody can begin ends some day. */
export const DISPATCHES = 100;
const BACKOFF = { baseMs: 500, capMs: 60_000 };

export type Verdict =
  { retry: true; afterMs: number; condition: RetryCondition } | { retry: false };

const CONDITIONS: Partial<Record<FailureCode, RetryCondition>> = {
  REQUEST_TIMEOUT: 'timeout',
  RUNNER_DISCONNECTED: 'server_error',
  RUNNER_INCOMPLETE: 'server_error',
  RUNNER_REFUSED: 'connection_error',
  RUNNER_CONNECTION: 'connection_error',
  RUNNER_EXITED: 'connection_error',
};

/** Ends that say nothing about the request or its app: the agent, its node or the way to us could not go on. */
const SAYS_NOTHING: readonly FailureCode[] = [
  'NODE_DRAINING',
  'SHUTTING_DOWN',
  'NODE_FULL',
  'SLOTS_FULL',
  'RUNNER_GONE',
  'DISK_FULL',
  'LINK_LOST',
  'ORIGIN_UNAVAILABLE',
  'UNAVAILABLE',
];

/** Such an end costs no attempt (Q5), only one of the dispatches. */
export function saysNothing(code: FailureCode): boolean {
  return SAYS_NOTHING.includes(code);
}

/** The condition that an outcome falls under; undefined: it is final. */
export function conditionOf(outcome: Outcome): RetryCondition | undefined {
  if (outcome.kind === 'failed') return CONDITIONS[outcome.code];
  return outcome.status === 503 || outcome.status === 504 ? 'server_error' : undefined;
}

/** `record.attempts` counts the attempt that just failed. */
export function retryVerdict(
  record: RequestRecord,
  spec: AppSpec,
  outcome: Outcome,
  chance: Chance,
): Verdict {
  const condition = conditionOf(outcome);
  if (!condition || record.noRetry || record.cancelRequestedAt !== undefined)
    return { retry: false };
  if (needsRetry(outcome) === false) return { retry: false };
  if (needsRetry(outcome) === undefined && spec.retries.skip_retry_conditions.includes(condition))
    return { retry: false };
  if (record.attempts >= ATTEMPTS || record.dispatches >= DISPATCHES) return { retry: false };
  return {
    retry: true,
    condition,
    afterMs: backoffMs(BACKOFF, Math.max(0, record.attempts - 1), chance, 'retry'),
  };
}

/** The app's own word, `X-Fal-Needs-Retry`, which counts on these statuses only and beats the app file. */
function needsRetry(outcome: Outcome): boolean | undefined {
  if (outcome.kind !== 'response') return undefined;
  const value = outcome.headers
    .find(([name]) => name.toLowerCase() === 'x-fal-needs-retry')?.[1]
    .toLowerCase();
  if (value === '1' || value === 'true') return true;
  return value === '0' || value === 'false' ? false : undefined;
}
