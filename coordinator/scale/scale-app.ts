// Carries out the scaling law for one app: makes the view, plans, starts and stops (S1: called from one place).
import type { Turn } from '../core/turn.ts';
import { queuedOf, type App } from '../state/app.ts';
import { stateOf, type Runner } from '../state/runner.ts';
import { scalePlan, type ScaleRunner } from './scale-plan.ts';
import { placeRunner, startRunner } from './start-runner.ts';
import { stopRunner } from './stop-runner.ts';

export function scaleApp(turn: Turn, app: App): void {
  const runners = runnersOf(turn, app);
  placeWaiting(turn, runners);
  const plan = scalePlan(
    {
      scaling: app.revision.spec.scaling,
      waiting: queuedOf(app) + app.calls.length,
      leased: app.inFlight,
      shortSince: app.shortSince,
      runners: runners.map(viewOf),
    },
    turn.elapsed,
  );
  app.wanted = plan.want;
  app.shortSince = plan.short ? (app.shortSince ?? turn.elapsed) : undefined;
  const held = turn.state.holdUntil;
  if (held === undefined && plan.start > 0) {
    const started = Array.from({ length: plan.start }, () => startRunner(turn, app));
    placeWaiting(turn, started);
  }
  for (const { id, why } of plan.stop) {
    const runner = turn.state.runners.get(id);
    if (runner) stopRunner(turn, runner, 'stop', why);
  }
  turn.state.agenda.set(
    `app:${app.record.app}`,
    wakeOf(turn, runnersOf(turn, app), plan.planAgainAt, held),
  );
}

/** Runners that wait for a place want the same one: what no node can hold for the first, none can hold for the others. */
function placeWaiting(turn: Turn, runners: readonly Runner[]): void {
  let refused: string | undefined;
  for (const runner of runners) {
    if (runner.phase.kind !== 'unplaced') continue;
    if (refused === undefined) placeRunner(turn, runner);
    else if (runner.phase.why !== refused) runner.phase = { ...runner.phase, why: refused };
    if (runner.phase.kind === 'unplaced') refused = runner.phase.why;
  }
}

function runnersOf(turn: Turn, app: App): Runner[] {
  return [...app.runners].flatMap((id) => turn.state.runners.get(id) ?? []);
}

/** Earliest of: the plan's own time, the end of a hold, a runner that refused and may be asked again. */
function wakeOf(
  turn: Turn,
  runners: readonly Runner[],
  planAgainAt: number | undefined,
  heldUntil: number | undefined,
): number | undefined {
  const times = runners.map((runner) => runner.shy.until).filter((at) => at > turn.elapsed);
  if (runners.some((runner) => runner.phase.kind === 'unplaced'))
    for (const { full } of turn.state.nodes.values())
      if (full.until > turn.elapsed) times.push(full.until);
  if (planAgainAt !== undefined) times.push(planAgainAt);
  if (heldUntil !== undefined) times.push(heldUntil);
  return times.length > 0 ? Math.min(...times) : undefined;
}

function viewOf(runner: Runner): ScaleRunner {
  const { phase } = runner;
  return {
    id: runner.id,
    state: stateOf(runner),
    placed: phase.kind !== 'unplaced' && phase.kind !== 'delayed',
    inFlight: runner.leases.size,
    served: runner.served,
    idleSince: phase.kind === 'ready' ? phase.idleSince : undefined,
  };
}
