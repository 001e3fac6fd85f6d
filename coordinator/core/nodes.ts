// Nodes and their links: a hello is the full state of an agent, so joining and coming back are one thing. Silence makes a node
// suspect (no new work); a node that stays away is lost, and its attempts run again, uncharged (Q5).
import type { NodeId, RunnerId } from '../../shared/ids.ts';
import { keys } from '../store/keys.ts';
import type { NodeRecord } from '../store/records.ts';
import type { Node } from '../state/node.ts';
import { notShy } from '../dispatch/shyness.ts';
import { runnersOn } from '../state/place-of-runner.ts';
import type { Runner } from '../state/runner.ts';
import { endRunner } from '../scale/end-runner.ts';
import { runnerReport } from '../scale/runner-report.ts';
import { sendStart } from '../scale/start-runner.ts';
import { touchUnplaced } from '../scale/touch-unplaced.ts';
import { heldUntil } from './mass-loss.ts';
import { reconcileAttempts } from './reconcile-attempts.ts';
import type { EventOf } from './event.ts';
import type { Turn } from './turn.ts';

export function linkUp(turn: Turn, event: EventOf<'linkUp'>): void {
  const { hello, linkId } = event;
  const { state } = turn;
  const known = state.nodes.get(hello.nodeId);
  if (known?.link.kind === 'linked') state.links.delete(known.link.linkId);
  const record: NodeRecord = {
    nodeId: hello.nodeId,
    name: hello.name,
    incarnation: hello.incarnation,
    firstSeenAt: known?.record.firstSeenAt ?? turn.now,
    lastSeenAt: turn.now,
    isLinked: true,
  };
  const node: Node = {
    record,
    link: {
      kind: 'linked',
      linkId,
      silent: false,
      draining: false,
      direct: {
        reachable: false,
        why: hello.advertise ? 'being tried' : 'the agent advertises no address',
      },
    },
    facts: hello,
    images: new Set(hello.images),
    full: notShy,
  };
  state.nodes.set(hello.nodeId, node);
  state.links.set(linkId, hello.nodeId);
  state.agenda.set(`node:${hello.nodeId}`, undefined);
  turn.put(undefined, keys.node(hello.nodeId), record, 'soft');
  // The welcome is the first that the agent hears; what it must end is found out next.
  const welcome = {
    act: 'welcome' as const,
    linkId,
    revoke: [] as string[],
    stop: [] as RunnerId[],
  };
  turn.act(welcome);
  welcome.stop.push(...reconcileRunners(turn, event));
  welcome.revoke.push(...reconcileAttempts(turn, event));
  for (const runner of runnersOn(state, hello.nodeId))
    // Said again: the order may have been lost, and what the agent reported between its hello and the welcome was. It
    // answers an order that it knows with the runner's state.
    if (runner.phase.kind === 'starting') sendStart(turn, runner);
  turn.record('node.joined', {
    node: hello.nodeId,
    name: hello.name,
    runners: hello.runners.length,
    attempts: hello.attempts.length,
    gpus: hello.gpus.kind === 'gpus' ? hello.gpus.gpus.length : 0,
  });
  endHoldWhenAllAreBack(turn);
  touchUnplaced(turn);
  for (const runner of runnersOn(state, hello.nodeId)) turn.touch(runner.app);
}

/** Runners that the agent has and we do not want; those that we had there and it has not are gone. */
function reconcileRunners(turn: Turn, event: EventOf<'linkUp'>): Runner['id'][] {
  const { nodeId, runners } = event.hello;
  const stop: Runner['id'][] = [];
  const there = new Set(runners.map((report) => report.runnerId));
  for (const report of runners) {
    const mine = turn.state.runners.get(report.runnerId);
    const verdict =
      mine?.phase.kind === 'ending' && report.state !== 'TERMINATED'
        ? mine.phase.state === 'DRAINING'
          ? 'drain'
          : 'stop'
        : runnerReport(turn, nodeId, report);
    if (verdict === 'stop') stop.push(report.runnerId);
    if (verdict === 'drain')
      turn.send(nodeId, { name: 'stopRunner', body: { runnerId: report.runnerId, how: 'drain' } });
  }
  for (const runner of runnersOn(turn.state, nodeId)) {
    if (there.has(runner.id)) continue;
    // A start that was on its way when the link broke is simply said again.
    if (runner.phase.kind === 'starting' && runner.phase.state === 'PENDING') continue;
    endRunner(turn, runner, { reason: 'its agent came back without it' });
  }
  return stop;
}

export function linkDown(turn: Turn, event: EventOf<'linkDown'>): void {
  const node = turn.state.nodes.get(event.nodeId);
  turn.state.links.delete(event.linkId);
  if (node?.link.kind !== 'linked' || node.link.linkId !== event.linkId) return;
  const lostAt = turn.elapsed + turn.state.timing.lostMs;
  node.link = { kind: 'away', since: turn.elapsed, lostAt };
  node.record = { ...node.record, lastSeenAt: turn.now, isLinked: false };
  turn.put(undefined, keys.node(event.nodeId), node.record, 'soft');
  turn.state.agenda.set(`node:${event.nodeId}`, lostAt);
  turn.record('node.suspect', { node: event.nodeId, name: node.record.name });
}

export function linkHearing(turn: Turn, event: EventOf<'linkSilent' | 'linkHeard'>): void {
  const node = turn.state.nodes.get(event.nodeId);
  if (node?.link.kind !== 'linked' || node.link.linkId !== event.linkId) return;
  node.link.silent = event.type === 'linkSilent';
  if (node.link.silent) turn.record('node.suspect', { node: event.nodeId, name: node.record.name });
  else {
    touchUnplaced(turn);
    for (const runner of runnersOn(turn.state, event.nodeId)) turn.touch(runner.app);
  }
}

export function nodeDialled(turn: Turn, event: EventOf<'nodeDialled'>): void {
  const node = turn.state.nodes.get(event.nodeId);
  if (node?.link.kind !== 'linked' || node.link.linkId !== event.linkId) return;
  const address = node.facts?.advertise;
  node.link.direct =
    event.reachable && address !== undefined
      ? { reachable: true, address }
      : { reachable: false, why: event.reason ?? 'the agent cannot be dialled' };
  for (const runner of runnersOn(turn.state, event.nodeId)) turn.touch(runner.app);
}

/** The node stayed away: its runners count as gone, and what it executed is placed again. */
export function nodeLost(turn: Turn, nodeId: NodeId): void {
  const node = turn.state.nodes.get(nodeId);
  if (node?.link.kind !== 'away' || isHeld(turn, node)) return;
  node.link = { ...node.link, lostAt: undefined };
  node.facts = undefined;
  if (node.record.isLinked) {
    node.record = { ...node.record, isLinked: false };
    turn.put(undefined, keys.node(nodeId), node.record, 'soft');
  }
  turn.record('node.lost', { node: nodeId, name: node.record.name });
  const failure = { code: 'LINK_LOST', message: 'the node was lost' } as const;
  for (const runner of runnersOn(turn.state, nodeId))
    endRunner(turn, runner, { reason: 'the node was lost', failure });
  for (const { requestId, hold } of turn.state.flights.values())
    if (hold.kind === 'sent' && hold.nodeId === nodeId) {
      const { epoch, number } = hold;
      turn.act({
        act: 'then',
        event: {
          type: 'requeue',
          requestId,
          attempt: { epoch, number },
          why: 'the node was lost',
          unlessBack: true,
        },
      });
    }
}

/** Most nodes went with it: then it is given more time (mass-loss.ts). */
function isHeld(turn: Turn, node: Node): boolean {
  if (node.link.kind !== 'away') return false;
  const all = [...turn.state.nodes.values()];
  const gone = all.filter(({ link }) => link.kind === 'away' && link.lostAt !== undefined).length;
  const linked = all.filter(({ link }) => link.kind === 'linked').length;
  const { lostMs } = turn.state.timing;
  const view = { gone, linked, awaySince: node.link.since, lostMs };
  const until = heldUntil(view, turn.elapsed);
  if (until === undefined) return false;
  node.link.lostAt = until;
  turn.state.agenda.set(`node:${node.record.nodeId}`, until);
  if (turn.state.massLossUntil === undefined || turn.state.massLossUntil <= turn.elapsed)
    turn.record('node.mass_loss', { gone, linked });
  turn.state.massLossUntil = until;
  return true;
}

/** After a restart nothing is started until the nodes that we know are back, or had their time (DESIGN §7 Scale). */
function endHoldWhenAllAreBack(turn: Turn): void {
  if (turn.state.holdUntil === undefined) return;
  const all = [...turn.state.nodes.values()];
  if (all.every((node) => node.link.kind === 'linked' || node.link.lostAt === undefined))
    endHold(turn);
}

export function endHold(turn: Turn): void {
  turn.state.holdUntil = undefined;
  turn.state.agenda.set('hold', undefined);
  for (const app of turn.state.apps.keys()) turn.touch(app);
}
