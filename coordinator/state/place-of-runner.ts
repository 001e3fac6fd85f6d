// Where each runner is, kept as an index, so that a plan looks at the runners of one node and not at all of them. Every
// change of a phase goes through here.
import type { CoreState } from './core-state.ts';
import { nodeOf, type Runner, type RunnerPhase } from './runner.ts';
import type { NodeId } from '../../shared/ids.ts';

export function addRunner(state: CoreState, runner: Runner): void {
  state.runners.set(runner.id, runner);
  state.apps.get(runner.app)?.runners.add(runner.id);
  list(state, runner);
}

/** False when it was gone already. */
export function removeRunner(state: CoreState, runner: Runner): boolean {
  if (!state.runners.delete(runner.id)) return false;
  state.apps.get(runner.app)?.runners.delete(runner.id);
  unlist(state, runner);
  return true;
}

export function setPhase(state: CoreState, runner: Runner, phase: RunnerPhase): void {
  unlist(state, runner);
  runner.phase = phase;
  list(state, runner);
}

export function runnersOn(state: CoreState, nodeId: NodeId): Runner[] {
  return [...(state.byNode.get(nodeId) ?? [])];
}

function list(state: CoreState, runner: Runner): void {
  if (runner.phase.kind === 'unplaced') state.unplaced.add(runner);
  const node = nodeOf(runner);
  if (node === undefined) return;
  const there = state.byNode.get(node) ?? new Set();
  state.byNode.set(node, there);
  there.add(runner);
}

function unlist(state: CoreState, runner: Runner): void {
  state.unplaced.delete(runner);
  const node = nodeOf(runner);
  const there = node === undefined ? undefined : state.byNode.get(node);
  if (node !== undefined && there?.delete(runner) && there.size === 0) state.byNode.delete(node);
}
