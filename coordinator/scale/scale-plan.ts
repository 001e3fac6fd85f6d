// How many runners an app has: the scaling law (DESIGN §7), pure. S1: this is the one place that decides it.
// S2: starting runners count as supply. S3: idle runners go first, and busy ones are never stopped for scale.
import type { AppSpec } from '../../shared/app-spec.ts';
import type { RunnerId } from '../../shared/ids.ts';
import { isEnding, type RunnerState } from '../../shared/runner-state.ts';

/** A runner that never got a request ends after this, when neither a minimum nor a buffer wants it (fal-contract §6.4). */
export const UNUSED_MS = 10_000;

export interface ScaleRunner {
  id: RunnerId;
  state: RunnerState;
  /** Not on any node yet: taking it back costs nothing. */
  placed: boolean;
  inFlight: number;
  /** It has had a request. */
  served: boolean;
  /** Monotonic ms since which it is idle; undefined while it is not. */
  idleSince: number | undefined;
}

export interface ScaleView {
  scaling: AppSpec['scaling'];
  /** Requests that wait, queued and direct. */
  waiting: number;
  /** Requests on runners. */
  leased: number;
  /** Monotonic ms since which more was wanted than there is; undefined while supply is enough. */
  shortSince: number | undefined;
  runners: readonly ScaleRunner[];
}

export interface ScalePlan {
  want: number;
  start: number;
  stop: { id: RunnerId; why: string }[];
  /** Supply is short of want. */
  short: boolean;
  /** Monotonic ms at which to plan again although nothing happens. */
  planAgainAt: number | undefined;
}

export function wantedRunners(scaling: AppSpec['scaling'], demand: number): number {
  const buffer = Math.max(
    scaling.concurrency_buffer,
    Math.ceil((scaling.concurrency_buffer_perc * demand) / 100),
  );
  const need = Math.ceil(demand / scaling.max_multiplexing) + buffer;
  return Math.min(scaling.max_concurrency, Math.max(scaling.min_concurrency, need));
}

export function scalePlan(view: ScaleView, now: number): ScalePlan {
  const { scaling } = view;
  const want = wantedRunners(scaling, view.waiting + view.leased);
  const alive = view.runners.filter((runner) => !isEnding(runner.state));
  const short = alive.length < want;
  const plan: ScalePlan = { want, start: 0, stop: [], short, planAgainAt: undefined };
  const again = (at: number): void => {
    plan.planAgainAt = Math.min(plan.planAgainAt ?? Number.POSITIVE_INFINITY, at);
  };
  if (short) {
    const delayedUntil = (view.shortSince ?? now) + scaling.scaling_delay * 1000;
    // A minimum is not demand: it is kept without delay.
    const atOnce = Math.max(0, Math.min(scaling.min_concurrency, want) - alive.length);
    plan.start = now >= delayedUntil ? want - alive.length : atOnce;
    if (now < delayedUntil) again(delayedUntil);
    return plan;
  }
  let spare = alive.length - want;
  for (const runner of alive) {
    if (spare === 0) break;
    if (runner.placed || runner.inFlight > 0) continue;
    plan.stop.push({ id: runner.id, why: 'no longer needed' });
    spare -= 1;
  }
  const keepAliveMs = scaling.keep_alive * 1000;
  const floor =
    scaling.min_concurrency > 0 ||
    scaling.concurrency_buffer > 0 ||
    scaling.concurrency_buffer_perc > 0;
  const idle = alive
    .filter((runner) => runner.idleSince !== undefined && runner.inFlight === 0)
    .sort((a, b) => (a.idleSince ?? 0) - (b.idleSince ?? 0));
  for (const runner of idle) {
    if (spare === 0) break;
    const unused = !runner.served && !floor;
    const patienceMs = unused ? Math.min(UNUSED_MS, keepAliveMs) : keepAliveMs;
    const expiresAt = (runner.idleSince ?? now) + patienceMs;
    if (now < expiresAt) {
      again(expiresAt);
      continue;
    }
    plan.stop.push({ id: runner.id, why: unused ? 'never used' : 'keep_alive' });
    spare -= 1;
  }
  return plan;
}
