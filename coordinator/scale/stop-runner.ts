// Ends a runner in order. S4: it leaves routing first (its phase is no longer ready), then it is told to stop.
import type { Turn } from '../core/turn.ts';
import type { EventOf } from '../core/event.ts';
import { setPhase } from '../state/place-of-runner.ts';
import type { Runner } from '../state/runner.ts';
import { nodeOf } from '../state/runner.ts';
import { endRunner } from './end-runner.ts';
import { noteState } from './note-state.ts';

/** `drain`: what runs on it may finish. A runner that is on no node simply goes. */
export function stopRunner(
  turn: Turn,
  runner: Runner,
  how: 'drain' | 'stop' | 'kill',
  why: string,
): void {
  const node = nodeOf(runner);
  if (!node) return endRunner(turn, runner, { reason: why });
  if (runner.phase.kind === 'ending' && how !== 'kill') return;
  const state = how === 'drain' ? 'DRAINING' : 'TERMINATING';
  setPhase(turn.state, runner, { kind: 'ending', node, state, why });
  noteState(turn, runner);
  turn.send(node, { name: 'stopRunner', body: { runnerId: runner.id, how } });
  turn.touch(runner.app);
}

/** An operator's wish. */
export function stopByHand(turn: Turn, event: EventOf<'stopRunner'>): void {
  const runner = turn.state.runners.get(event.runnerId);
  if (!runner) return turn.reply('stopRunner', event.replyTo, 'not_found');
  stopRunner(turn, runner, event.how === 'stop' ? 'drain' : 'kill', 'stopped by hand');
  turn.reply('stopRunner', event.replyTo, 'stopping');
}
