// What an agent says of a runner becomes what we believe of it. The agent is right about its own machine: a runner that we do
// not know is adopted when its revision is current, and told to stop otherwise.
import type { Turn } from '../core/turn.ts';
import type { NodeId } from '../../shared/ids.ts';
import type { RunnerReport } from '../../shared/protocol.ts';
import { afterFailure, noFailures } from './failure-delay.ts';
import type { FailureCode } from '../../shared/failure.ts';
import { afterRefusal, notShy } from '../dispatch/shyness.ts';
import { addRunner, setPhase } from '../state/place-of-runner.ts';
import { nodeOf, type Runner, type RunnerPhase } from '../state/runner.ts';
import { endRunner } from './end-runner.ts';
import { noteState } from './note-state.ts';
import { wakeRunner } from './start-runner.ts';

/** Ends that say nothing about the app. */
const NOT_THE_APP: readonly FailureCode[] = [
  'NODE_FULL',
  'NODE_DRAINING',
  'SHUTTING_DOWN',
  'LINK_LOST',
];

/** `stop`, `drain`: we do not want it, at once or after what it does; the caller tells the agent. */
export function runnerReport(
  turn: Turn,
  nodeId: NodeId,
  report: RunnerReport,
): 'fine' | 'stop' | 'drain' {
  const runner = turn.state.runners.get(report.runnerId) ?? adopt(turn, nodeId, report);
  if (!runner) return unwanted(turn, report);
  if (nodeOf(runner) !== nodeId) return 'stop';
  runner.gpus = report.gpus;
  if (report.cpu !== undefined) runner.cpu = report.cpu;
  if (report.memoryBytes !== undefined) runner.memoryBytes = report.memoryBytes;
  if (report.state === 'TERMINATED') {
    ended(turn, runner, nodeId, report);
    return 'fine';
  }
  // What we are ending may still report an older state: ours stands.
  if (runner.phase.kind === 'ending' && report.state !== 'TERMINATING') return 'fine';
  const wasStarting = runner.phase.kind === 'starting';
  setPhase(turn.state, runner, phaseOf(turn, runner, nodeId, report));
  noteState(turn, runner);
  if (wasStarting && runner.phase.kind === 'ready') succeeded(turn, runner);
  // It still has to be stopped, but the next start is planned from now on.
  if (wasStarting && report.failure) startFailed(turn, runner, report.failure);
  turn.touch(runner.app);
  return 'fine';
}

/** One of an older revision may be executing what it was given: it finishes that. */
function unwanted(turn: Turn, report: RunnerReport): 'fine' | 'stop' | 'drain' {
  if (report.state === 'TERMINATED') return 'fine';
  return turn.state.apps.has(report.app) ? 'drain' : 'stop';
}

function phaseOf(turn: Turn, runner: Runner, node: NodeId, report: RunnerReport): RunnerPhase {
  const { state } = report;
  if (state === 'IDLE' || state === 'RUNNING') {
    if (runner.phase.kind === 'ready') return runner.phase;
    return { kind: 'ready', node, idleSince: runner.leases.size === 0 ? turn.elapsed : undefined };
  }
  if (state === 'DRAINING' || state === 'TERMINATING')
    return {
      kind: 'ending',
      node,
      state,
      why: runner.phase.kind === 'ending' ? runner.phase.why : 'ended by its agent',
    };
  const starting = state === 'DOCKER_PULL' || state === 'SETUP' ? state : 'PENDING';
  const progress = report.progress;
  if (!progress) return { kind: 'starting', node, state: starting };
  const { what, doneBytes, totalBytes } = progress;
  return {
    kind: 'starting',
    node,
    state: starting,
    progress: totalBytes === undefined ? { what, doneBytes } : { what, doneBytes, totalBytes },
  };
}

/** The first success wakes every runner of the app that is held back, and the count starts again. */
function succeeded(turn: Turn, runner: Runner): void {
  const app = turn.state.apps.get(runner.app);
  if (!app) return;
  app.failures = noFailures;
  notFull(turn, nodeOf(runner));
  for (const id of app.runners) {
    const other = turn.state.runners.get(id);
    if (other) wakeRunner(turn, other);
  }
}

/** Something began or ended there: what it said of its room may be true no more. */
function notFull(turn: Turn, nodeId: NodeId | undefined): void {
  const node = nodeId && turn.state.nodes.get(nodeId);
  if (node) node.full = notShy;
}

/** Once for each start that failed: it is told with TERMINATING where there is something to stop, else with TERMINATED. */
function startFailed(
  turn: Turn,
  runner: Runner,
  failure: NonNullable<RunnerReport['failure']>,
): void {
  const app = turn.state.apps.get(runner.app);
  if (app && !NOT_THE_APP.includes(failure.code))
    app.failures = afterFailure(app.failures, failure, turn.elapsed);
}

function ended(turn: Turn, runner: Runner, nodeId: NodeId, report: RunnerReport): void {
  const { failure } = report;
  if (failure?.code === 'NODE_FULL') {
    const node = turn.state.nodes.get(nodeId);
    if (node) node.full = afterRefusal(node.full, 'node', turn.elapsed);
  } else notFull(turn, nodeId);
  if (runner.phase.kind === 'starting' && failure) startFailed(turn, runner, failure);
  const why = runner.phase.kind === 'ending' ? runner.phase.why : 'ended by itself';
  endRunner(turn, runner, failure ? { reason: failure.message, failure } : { reason: why });
}

function adopt(turn: Turn, nodeId: NodeId, report: RunnerReport): Runner | undefined {
  const app = turn.state.apps.get(report.app);
  if (!app || app.revision.revision !== report.revision || report.state === 'TERMINATED')
    return undefined;
  if (report.state === 'TERMINATING' || report.state === 'DRAINING') return undefined;
  const state =
    report.state === 'PENDING' || report.state === 'DOCKER_PULL' ? report.state : 'SETUP';
  const runner: Runner = {
    id: report.runnerId,
    app: report.app,
    revision: app.revision,
    slots: report.slots,
    phase: { kind: 'starting', node: nodeId, state },
    leases: new Set(),
    served: true,
    usedAt: turn.elapsed,
    shy: notShy,
    gpus: report.gpus,
    cpu: report.cpu ?? 0,
    memoryBytes: report.memoryBytes ?? 0,
    states: [],
  };
  addRunner(turn.state, runner);
  return runner;
}
