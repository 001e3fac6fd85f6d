// Why the next request of an app waits: the question that operators ask most, answered from what the core believes. Pure.
import { stateOf, type Runner } from '../state/runner.ts';
import type { App } from '../state/app.ts';
import type { CoreState } from '../state/core-state.ts';
import type { WaitReason } from './query.ts';

export function waitReason(
  state: CoreState,
  app: App,
  at: { now: number; elapsed: number },
): WaitReason {
  const wall = (elapsed: number): number => Math.round(at.now + (elapsed - at.elapsed));
  const runners = [...app.runners].flatMap((id) => state.runners.get(id) ?? []);
  const starting = nearest(runners);
  if (starting) return startingReason(starting, app, wall);
  const ready = runners.filter((runner) => runner.phase.kind === 'ready').length;
  const { max_concurrency: max, scaling_delay: delay } = app.revision.spec.scaling;
  if (state.holdUntil !== undefined && ready === 0)
    return {
      code: 'holding_after_restart',
      text: 'the coordinator restarted and waits for its nodes to come back',
      until: wall(state.holdUntil),
    };
  if (ready > 0 && app.runners.size < max && app.shortSince !== undefined && delay > 0)
    return {
      code: 'scaling_delay',
      text: 'a runner is started after scaling_delay',
      until: wall(app.shortSince + delay * 1000),
    };
  if (app.runners.size >= max && max > 0)
    return { code: 'max_concurrency', text: `all runners are busy, and max_concurrency is ${max}` };
  if (max === 0)
    return { code: 'max_concurrency', text: 'max_concurrency is 0: the app is switched off' };
  if (ready > 0) return { code: 'runners_busy', text: `all ${ready} runners are busy` };
  return { code: 'placing', text: 'a runner is being planned' };
}

/** The starting runner that is furthest on its way. */
function nearest(runners: readonly Runner[]): Runner | undefined {
  const order = ['SETUP', 'DOCKER_PULL', 'PENDING', 'FAILURE_DELAY'];
  return runners
    .filter((runner) => order.includes(stateOf(runner)))
    .sort((a, b) => order.indexOf(stateOf(a)) - order.indexOf(stateOf(b)))[0];
}

function startingReason(runner: Runner, app: App, wall: (elapsed: number) => number): WaitReason {
  const { phase } = runner;
  if (phase.kind === 'delayed')
    return {
      code: 'failure_delay',
      text: `${app.failures.count} ${app.failures.count === 1 ? 'start' : 'starts'} failed in a row${lastFailure(app)}; the next one is held back`,
      until: wall(phase.until),
    };
  if (phase.kind === 'unplaced')
    return {
      code: phase.why === 'no node has joined' ? 'no_node' : 'no_room',
      text: `no node can hold a runner: ${phase.why}`,
    };
  if (phase.kind !== 'starting') return { code: 'placing', text: 'a runner is being planned' };
  if (phase.state === 'SETUP')
    return { code: 'setup', text: `a runner sets up${progressText(phase.progress)}` };
  if (phase.state === 'DOCKER_PULL')
    return {
      code: 'pulling',
      text: `a runner fetches what it needs${progressText(phase.progress)}`,
    };
  return { code: 'placing', text: 'a node was asked to start a runner' };
}

function progressText(
  progress: { what: string; doneBytes: number; totalBytes?: number } | undefined,
): string {
  if (!progress) return '';
  const mb = (bytes: number): string => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
  const of = progress.totalBytes === undefined ? '' : ` of ${mb(progress.totalBytes)}`;
  return `: ${progress.what}, ${mb(progress.doneBytes)}${of} MB`;
}

/** A message may end with log lines of the runner: the first line says enough here. */
const SHOWN = 200;

function lastFailure(app: App): string {
  const { last } = app.failures;
  if (!last) return '';
  const line = last.message.split('\n', 1)[0] ?? '';
  return `, the last with ${last.code}: ${line.length > SHOWN ? `${line.slice(0, SHOWN)}…` : line}`;
}
