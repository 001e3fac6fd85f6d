// Leases: who holds which slot. Taking and giving back happen here and nowhere else (S5).
import type { CallId } from '../core/event.ts';
import type { Turn } from '../core/turn.ts';
import type { RequestId } from '../../shared/ids.ts';
import { isReadyNode } from '../state/node.ts';
import { nodeOf, type LeaseHolder, type Runner } from '../state/runner.ts';
import { noteState } from '../scale/note-state.ts';

/** D1: the runner is ready, its node is heard, and it did not refuse a moment ago. */
export function isOpen(turn: Turn, runner: Runner): boolean {
  if (runner.phase.kind !== 'ready' || runner.shy.until > turn.elapsed) return false;
  const node = turn.state.nodes.get(runner.phase.node);
  return node !== undefined && isReadyNode(node);
}

/** Where direct calls to this runner go; undefined when its node cannot be dialled. */
export function directAddress(turn: Turn, runner: Runner): string | undefined {
  const nodeId = nodeOf(runner);
  const link = nodeId ? turn.state.nodes.get(nodeId)?.link : undefined;
  return link?.kind === 'linked' && link.direct.reachable ? link.direct.address : undefined;
}

export function takeSlot(turn: Turn, runner: Runner, holder: LeaseHolder): void {
  runner.leases.add(holder);
  runner.served = true;
  runner.usedAt = turn.elapsed;
  if (runner.phase.kind === 'ready') runner.phase.idleSince = undefined;
  const app = turn.state.apps.get(runner.app);
  if (app) app.inFlight += 1;
  noteState(turn, runner);
}

/** Frees the slot of a queued request; fine when it holds none. */
export function releaseFlight(turn: Turn, requestId: RequestId): void {
  const flight = turn.state.flights.get(requestId);
  if (!flight) return;
  turn.state.flights.delete(requestId);
  free(turn, flight.app, turn.state.runners.get(flight.runnerId), requestId);
}

/** Frees the slot of a direct call; fine when it holds none. */
export function releaseCall(turn: Turn, callId: CallId): void {
  const call = turn.state.calls.get(callId);
  if (!call) return;
  turn.state.calls.delete(callId);
  free(turn, call.app, turn.state.runners.get(call.runnerId), callId);
}

function free(turn: Turn, appName: string, runner: Runner | undefined, holder: LeaseHolder): void {
  const app = turn.state.apps.get(appName);
  if (app) app.inFlight -= 1;
  if (runner?.leases.delete(holder) && runner.leases.size === 0 && runner.phase.kind === 'ready')
    runner.phase.idleSince = turn.elapsed;
  if (runner) noteState(turn, runner);
  turn.touch(appName);
}
