// Keeps the history of a runner's states, for people and for the phases of a cold start.
import type { Turn } from '../core/turn.ts';
import { stateOf, type Runner } from '../state/runner.ts';

/** A runner that serves flips between IDLE and RUNNING; of its states the first and the latest are kept. */
const KEPT = 24;

export function noteState(turn: Turn, runner: Runner): void {
  const state = stateOf(runner);
  const last = runner.states.at(-1)?.state;
  if (state === last) return;
  runner.states.push({ state, at: turn.now });
  if (runner.states.length > KEPT) runner.states.splice(KEPT / 2, 1);
  const serving = (state === 'IDLE' && last === 'RUNNING') || state === 'RUNNING';
  if (!serving)
    turn.record('runner.state', { runner: runner.id, app: runner.app, state, from: last ?? null });
}
