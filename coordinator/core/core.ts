// The core: one event in, writes and acts out. Synchronous, free of I/O, clock and chance; the only place where state changes.
// A second shell round it is the simulator's. Invariants by number: DESIGN §3; Q1–Q6 and D1 live in queue/ and dispatch/,
// S1–S5 in scale/ and dispatch/leases.ts.
import type { NodeId, RequestId, RunnerId } from '../../shared/ids.ts';
import { deploy } from '../app/deploy.ts';
import { call, callDue, callEnded } from '../dispatch/calls.ts';
import { dispatchApp } from '../dispatch/dispatch.ts';
import { cancel } from '../queue/cancel.ts';
import { due } from '../queue/due.ts';
import { finished } from '../queue/finish.ts';
import { dispatchLoaded, refused, requeue, started } from '../queue/flight.ts';
import { submit } from '../queue/submit.ts';
import { runnerReport } from '../scale/runner-report.ts';
import { scaleApp } from '../scale/scale-app.ts';
import { wakeRunner } from '../scale/start-runner.ts';
import { stopByHand } from '../scale/stop-runner.ts';
import { touchUnplaced } from '../scale/touch-unplaced.ts';
import type { CoreState } from '../state/core-state.ts';
import type { Step } from './act.ts';
import type { Event, EventOf } from './event.ts';
import { endHold, linkDown, linkHearing, linkUp, nodeDialled, nodeLost } from './nodes.ts';
import { Turn } from './turn.ts';

/** Rounds of planning that one step may need; more means two plans undo each other, which is a defect. */
const PLAN_ROUNDS = 100;

export class Core {
  readonly state: CoreState;

  constructor(state: CoreState) {
    this.state = state;
  }

  /**
   * @param loaded values of `keysOf(event)`, as they are after every step so far; absent keys are absent
   * @param now wall ms @param elapsed monotonic ms
   */
  apply(event: Event, loaded: ReadonlyMap<string, unknown>, now: number, elapsed: number): Step {
    const turn = new Turn(this.state, loaded, now, elapsed);
    handle(turn, event);
    plan(turn);
    return turn.end();
  }
}

/** Dispatch first, then scale: what could be given away needs no new runner. */
function plan(turn: Turn): void {
  const { touched, apps } = turn.state;
  for (let round = 0; touched.size > 0; round += 1) {
    if (round === PLAN_ROUNDS) throw new Error('planning does not settle');
    for (const name of [...touched]) {
      touched.delete(name);
      const app = apps.get(name);
      if (!app) continue;
      dispatchApp(turn, app);
      scaleApp(turn, app);
    }
  }
}

function handle(turn: Turn, event: Event): void {
  switch (event.type) {
    case 'submit':
      return submit(turn, event);
    case 'cancel':
      return cancel(turn, event);
    case 'call':
      return call(turn, event);
    case 'callEnded':
      return callEnded(turn, event);
    case 'deploy':
      return deploy(turn, event);
    case 'stopRunner':
      return stopByHand(turn, event);
    case 'linkUp':
      return linkUp(turn, event);
    case 'linkDown':
      return linkDown(turn, event);
    case 'linkSilent':
    case 'linkHeard':
      return linkHearing(turn, event);
    case 'nodeDialled':
      return nodeDialled(turn, event);
    case 'runner':
    case 'images':
    case 'gpus':
      return fromAgent(turn, event);
    case 'started':
      return started(turn, event);
    case 'refused':
      return refused(turn, event);
    case 'finished':
      return finished(turn, event);
    case 'dispatch':
      return dispatchLoaded(turn, event);
    case 'requeue':
      return requeue(turn, event);
    case 'due':
      return due(turn, event);
    case 'scanned':
      return scanned(turn, event);
    case 'tick':
      return tick(turn);
  }
}

function scanned(turn: Turn, event: EventOf<'scanned'>): void {
  const app = turn.state.apps.get(event.app);
  app?.ready[event.priority].refill(event.entries, event.complete);
  turn.touch(event.app);
}

function fromAgent(turn: Turn, event: EventOf<'runner' | 'images' | 'gpus'>): void {
  const { message, nodeId, linkId } = event;
  const node = turn.state.nodes.get(nodeId);
  if (node?.link.kind !== 'linked' || node.link.linkId !== linkId) return;
  if (message.name === 'runner') {
    const verdict = runnerReport(turn, nodeId, message.body);
    if (verdict !== 'fine')
      turn.send(nodeId, {
        name: 'stopRunner',
        body: { runnerId: message.body.runnerId, how: verdict },
      });
  } else if (message.name === 'images') {
    for (const digest of message.body.added) node.images.add(digest);
    for (const digest of message.body.removed) node.images.delete(digest);
  } else if (message.name === 'gpus' && node.facts) {
    node.facts = { ...node.facts, gpus: message.body };
    turn.record('gpu.changed', { node: nodeId, kind: message.body.kind });
    touchUnplaced(turn);
  }
}

/** Whatever is due on the agenda; its keys say what. */
function tick(turn: Turn): void {
  for (const key of turn.state.agenda.popDue(turn.elapsed)) {
    const cut = key.indexOf(':');
    const [kind, id] = cut < 0 ? [key, ''] : [key.slice(0, cut), key.slice(cut + 1)];
    switch (kind) {
      case 'app':
        turn.touch(id);
        break;
      case 'node':
        nodeLost(turn, id as NodeId);
        break;
      case 'hold':
        endHold(turn);
        break;
      case 'call':
        callDue(turn, Number(id));
        break;
      case 'runner': {
        const runner = turn.state.runners.get(id as RunnerId);
        if (runner) wakeRunner(turn, runner);
        break;
      }
      case 'retry':
      case 'start':
        turn.act({ act: 'then', event: { type: 'due', requestId: id as RequestId, kind } });
        break;
    }
  }
}
