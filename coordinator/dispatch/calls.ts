// Direct calls: they wait in memory for a slot and hold it as a lease; no durability, no retry (mission: Requests and
// Retries). A call whose caller went away gives up its place.
import assert from 'node:assert/strict';
import type { EventOf, CallId } from '../core/event.ts';
import type { Turn } from '../core/turn.ts';
import { limits } from '../../shared/limits.ts';
import type { WaitingCall } from '../state/app.ts';
import type { Runner } from '../state/runner.ts';
import { nodeOf } from '../state/runner.ts';
import { directAddress, releaseCall, takeSlot } from './leases.ts';
import { afterRefusal, notShy } from './shyness.ts';

export function call(turn: Turn, event: EventOf<'call'>): void {
  const app = turn.state.apps.get(event.app);
  if (!app)
    return turn.reply('call', event.replyTo, {
      refused: 'NOT_FOUND',
      message: `Application "${event.app}" not found`,
    });
  if (turn.state.waitingCalls.size >= limits.directWaiters)
    return turn.reply('call', event.replyTo, {
      refused: 'QUEUE_FULL',
      message: `${limits.directWaiters} direct calls wait already`,
    });
  app.calls.push({ callId: event.callId, replyTo: event.replyTo, arrivedAt: turn.now });
  turn.state.waitingCalls.set(event.callId, event.app);
  if (event.startTimeoutMs !== undefined)
    turn.state.agenda.set(`call:${event.callId}`, turn.elapsed + event.startTimeoutMs);
  turn.touch(event.app);
}

/** Gives the slot; the link's key makes it a token that the agent accepts once. */
export function grantCall(turn: Turn, runner: Runner, waiting: WaitingCall): void {
  const { callId } = waiting;
  const nodeId = nodeOf(runner);
  const link = nodeId ? turn.state.nodes.get(nodeId)?.link : undefined;
  const address = directAddress(turn, runner);
  turn.state.waitingCalls.delete(callId);
  turn.state.agenda.set(`call:${callId}`, undefined);
  assert(
    nodeId && link?.kind === 'linked' && address !== undefined,
    'only open runners are chosen',
  );
  takeSlot(turn, runner, callId);
  turn.state.calls.set(callId, { app: runner.app, runnerId: runner.id });
  turn.act({
    act: 'lease',
    to: waiting.replyTo,
    linkId: link.linkId,
    leaseId: String(callId),
    answer: {
      runnerId: runner.id,
      nodeId,
      address,
      requestTimeoutMs: runner.revision.spec.timeouts.request_timeout * 1000,
    },
  });
}

export function callEnded(turn: Turn, event: EventOf<'callEnded'>): void {
  const lease = turn.state.calls.get(event.callId);
  if (lease) {
    const runner = turn.state.runners.get(lease.runnerId);
    if (runner && event.refusedByAgent)
      runner.shy = afterRefusal(runner.shy, 'runner', turn.elapsed);
    else if (runner) runner.shy = notShy;
    return releaseCall(turn, event.callId);
  }
  const waiting = dropWaiting(turn, event.callId);
  if (waiting)
    turn.reply('call', waiting.replyTo, {
      refused: 'CLIENT_DISCONNECTED',
      message: 'the caller went away while it waited',
    });
}

/** The start timeout of a waiting call ran out. */
export function callDue(turn: Turn, callId: CallId): void {
  const waiting = dropWaiting(turn, callId);
  if (waiting)
    turn.reply('call', waiting.replyTo, {
      refused: 'START_TIMEOUT',
      message: 'Request timed out before it was started',
    });
}

function dropWaiting(turn: Turn, callId: CallId): WaitingCall | undefined {
  const name = turn.state.waitingCalls.get(callId);
  const app = name === undefined ? undefined : turn.state.apps.get(name);
  if (!app) return undefined;
  turn.state.waitingCalls.delete(callId);
  turn.state.agenda.set(`call:${callId}`, undefined);
  const at = app.calls.findIndex((one) => one.callId === callId);
  const [waiting] = at >= 0 ? app.calls.splice(at, 1) : [];
  turn.touch(app.record.app);
  return waiting;
}
