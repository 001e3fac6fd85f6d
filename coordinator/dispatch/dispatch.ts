// Dispatch: late binding of waiting requests to free slots, by push, whenever a request arrives or a slot frees. Queued
// requests of one priority go first in, first out (Q4); a direct call goes before a queued request that came later.
import type { Turn } from '../core/turn.ts';
import type { RequestId } from '../../shared/ids.ts';
import type { App, WaitingCall } from '../state/app.ts';
import type { Runner } from '../state/runner.ts';
import type { QueueEntry } from '../queue/ready-queue.ts';
import type { Priority } from '../store/keys.ts';
import { grantCall } from './calls.ts';
import { chooseRunner, type Candidate } from './choose-runner.ts';
import { directAddress, isOpen, takeSlot } from './leases.ts';

type OpenRunner = Candidate & { runner: Runner };

/** Runners of the app that could take a request now; with `direct`, only those that can be dialled. */
export function* candidatesOf(turn: Turn, app: App, direct: boolean): Iterable<OpenRunner> {
  for (const id of app.runners) {
    const runner = turn.state.runners.get(id);
    if (!runner || !isOpen(turn, runner)) continue;
    if (direct && directAddress(turn, runner) === undefined) continue;
    yield { id, slots: runner.slots, inFlight: runner.leases.size, usedAt: runner.usedAt, runner };
  }
}

export function freeRunner(turn: Turn, app: App, direct: boolean): Runner | undefined {
  return chooseRunner(candidatesOf(turn, app, direct))?.runner;
}

/** Gives every free slot of the app to who is next, and asks for more of a queue whose head runs out. */
export function dispatchApp(turn: Turn, app: App): void {
  while (dispatchOne(turn, app));
  for (const priority of [0, 1] as const) {
    const scan = app.ready[priority].beginScan();
    if (scan) turn.act({ act: 'scan', app: app.record.app, priority, ...scan });
  }
}

function dispatchOne(turn: Turn, app: App): boolean {
  const next = nextQueued(app);
  const call = app.calls[0];
  const callFirst = call && (!next || call.arrivedAt <= arrivalOf(next.entry.requestId));
  if (callFirst && giveCall(turn, app, call)) return true;
  if (next) {
    const runner = freeRunner(turn, app, false);
    if (runner) {
      reserve(turn, app, runner, next.priority);
      return true;
    }
  }
  return call && !callFirst ? giveCall(turn, app, call) : false;
}

function giveCall(turn: Turn, app: App, call: WaitingCall): boolean {
  const runner = freeRunner(turn, app, true);
  if (!runner) return false;
  app.calls.shift();
  grantCall(turn, runner, call);
  return true;
}

/** The head of the queue; while the normal one is being read from disk, a low one must not slip past it. */
function nextQueued(app: App): { entry: QueueEntry; priority: Priority } | undefined {
  const priority: Priority = app.ready[0].depth > 0 ? 0 : 1;
  const entry = app.ready[priority].head;
  return entry ? { entry, priority } : undefined;
}

/** Takes the slot now and loads the record; `dispatchLoaded` goes on. */
function reserve(turn: Turn, app: App, runner: Runner, priority: Priority): void {
  const entry = app.ready[priority].take();
  if (!entry) return;
  const { requestId } = entry;
  takeSlot(turn, runner, requestId);
  turn.state.flights.set(requestId, {
    requestId,
    app: app.record.app,
    runnerId: runner.id,
    hold: { kind: 'reserved', entry, priority },
  });
  turn.act({ act: 'then', event: { type: 'dispatch', requestId, runnerId: runner.id } });
}

/** Wall ms of the submit, which every request id carries (RFC 9562 §5.7). */
function arrivalOf(id: RequestId): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}
