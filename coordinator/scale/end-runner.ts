// A runner is gone: it leaves every list, frees what was only reserved on it, and is remembered for people. Attempts that it
// was executing stay in flight until their agent says how they ended, or is lost itself.
import type { Turn } from '../core/turn.ts';
import type { FailureCode } from '../../shared/failure.ts';
import { putBack } from '../dispatch/put-back.ts';
import { ENDED_KEPT } from '../state/core-state.ts';
import { removeRunner } from '../state/place-of-runner.ts';
import { nodeOf, type Runner } from '../state/runner.ts';
import { touchUnplaced } from './touch-unplaced.ts';

export interface Ending {
  reason: string;
  failure?: { code: FailureCode; message: string };
}

export function endRunner(turn: Turn, runner: Runner, ending: Ending): void {
  if (!removeRunner(turn.state, runner)) return;
  turn.state.agenda.set(`runner:${runner.id}`, undefined);
  for (const holder of runner.leases) if (typeof holder === 'string') putBack(turn, holder);
  runner.states.push({ state: 'TERMINATED', at: turn.now });
  turn.state.ended.unshift({
    runner,
    node: nodeOf(runner),
    reason: ending.reason,
    ...(ending.failure ? { failure: ending.failure } : {}),
  });
  turn.state.ended.length = Math.min(turn.state.ended.length, ENDED_KEPT);
  turn.record('runner.ended', {
    runner: runner.id,
    app: runner.app,
    node: nodeOf(runner) ?? null,
    reason: ending.reason,
    code: ending.failure?.code ?? null,
    served: runner.served,
    states: runner.states
      .map(({ state, at }) => `${state}@${at - (runner.states[0]?.at ?? at)}`)
      .join(' '),
  });
  turn.touch(runner.app);
  touchUnplaced(turn);
}
