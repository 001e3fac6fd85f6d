// The answers to queries: plain copies of what the core believes, made for people and programs. Pure.
import { inactiveFields } from '../../shared/app-spec.ts';
import type { NodeId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { RunnerState } from '../../shared/runner-state.ts';
import { queuedOf, type App } from '../state/app.ts';
import type { CoreState } from '../state/core-state.ts';
import { placeNodeOf, type Node } from '../state/node.ts';
import { runnersOn } from '../state/place-of-runner.ts';
import { nodeOf, stateOf, type EndedRunner, type Runner } from '../state/runner.ts';
import type { AppView, CoreCounts, NodeView, Queries, QueryName, RunnerView } from './query.ts';
import { waitReason } from './wait-reason.ts';

/** Wall and monotonic ms of the question. */
export interface Moment {
  now: number;
  elapsed: number;
}

type Answering = {
  [Q in QueryName]: (state: CoreState, ask: Queries[Q]['ask'], at: Moment) => Queries[Q]['answer'];
};

export const answers: Answering = {
  apps: (state, _ask, at) => [...state.apps.values()].map((app) => appView(state, app, at)),
  app: (state, { app }, at) => {
    const found = state.apps.get(app);
    return found ? appView(state, found, at) : undefined;
  },
  runners: (state, { app, ended }, at) => {
    const live = [...state.runners.values()].map((runner) => runnerView(state, runner, at));
    const gone = ended ? state.ended.map((one) => endedView(state, one)) : [];
    return [...live, ...gone]
      .filter((view) => app === undefined || view.app === app)
      .slice(0, limits.pageItems);
  },
  nodes: (state, _ask, at) => [...state.nodes.values()].map((node) => nodeView(state, node, at)),
  position: (state, { app, priority, sequence, requestId }, at) => {
    const found = state.apps.get(app);
    if (!found)
      return {
        position: 0,
        waiting: { code: 'placing', text: 'the app is not deployed any more' },
      };
    const reserved = state.flights.has(requestId);
    const normal = priority === 1 ? found.ready[0].depth : 0;
    const position = reserved ? 0 : normal + found.ready[priority].ahead({ sequence, requestId });
    if (reserved)
      return { position, waiting: { code: 'dispatching', text: 'being given to a runner' } };
    return { position, waiting: waitReason(state, found, at) };
  },
  counts: (state) => counts(state),
};

function appView(state: CoreState, app: App, at: Moment): AppView {
  const { record, revision } = app;
  const waits = queuedOf(app) + app.calls.length > 0;
  return {
    app: record.app,
    revision: revision.revision,
    revisionNumber: revision.number,
    spec: revision.spec,
    ...(revision.imageDigest ? { imageDigest: revision.imageDigest } : {}),
    inactive: inactiveFields(revision.spec),
    queued: queuedOf(app),
    inFlight: app.inFlight,
    runners: app.runners.size,
    wanted: app.wanted,
    createdAt: record.createdAt,
    updatedAt: record.updatedAt,
    ...(waits ? { waiting: waitReason(state, app, at) } : {}),
    failures: app.failures.count,
  };
}

function runnerView(state: CoreState, runner: Runner, at: Moment): RunnerView {
  const { phase } = runner;
  const node = nodeRef(state, nodeOf(runner));
  const app = state.apps.get(runner.app);
  const keepAliveMs = runner.revision.spec.scaling.keep_alive * 1000;
  const expires =
    phase.kind === 'ready' && phase.idleSince !== undefined && app && app.runners.size > app.wanted
      ? Math.max(0, Math.ceil((phase.idleSince + keepAliveMs - at.elapsed) / 1000))
      : undefined;
  return {
    ...baseView(runner),
    ...(node ? { node } : {}),
    ...reasonOf(runner, at),
    ...(phase.kind === 'starting' && phase.progress ? { progress: phase.progress } : {}),
    ...(expires === undefined ? {} : { expiresInSeconds: expires }),
  };
}

function endedView(state: CoreState, ended: EndedRunner): RunnerView {
  const node = nodeRef(state, ended.node);
  return {
    ...baseView(ended.runner),
    ...(node ? { node } : {}),
    state: 'TERMINATED',
    reason: ended.reason,
    ...(ended.failure ? { failure: ended.failure } : {}),
  };
}

function baseView(runner: Runner): Omit<RunnerView, 'node' | 'reason'> {
  return {
    id: runner.id,
    app: runner.app,
    revision: runner.revision.revision,
    state: stateOf(runner),
    slots: runner.slots,
    inFlight: runner.leases.size,
    requests: [...runner.leases].filter((holder) => typeof holder === 'string'),
    gpus: [...runner.gpus],
    states: runner.states.map((one) => ({ ...one })),
  };
}

function reasonOf(runner: Runner, at: Moment): { reason?: string } {
  const { phase } = runner;
  if (phase.kind === 'delayed')
    return {
      reason: `starts failed; next try in ${Math.max(0, Math.ceil((phase.until - at.elapsed) / 1000))} s`,
    };
  if (phase.kind === 'unplaced' || phase.kind === 'ending') return { reason: phase.why };
  return {};
}

function nodeRef(
  state: CoreState,
  id: NodeId | undefined,
): { id: NodeId; name: string } | undefined {
  return id === undefined ? undefined : { id, name: state.nodes.get(id)?.record.name ?? id };
}

function nodeView(state: CoreState, node: Node, at: Moment): NodeView {
  const place = placeNodeOf(node, runnersOn(state, node.record.nodeId), at.elapsed);
  const { link, facts, record } = node;
  const linked = link.kind === 'linked';
  return {
    id: record.nodeId,
    name: record.name,
    state: stateOfNode(node),
    ...(facts ? { version: facts.version } : {}),
    ...(facts?.advertise ? { advertise: facts.advertise } : {}),
    ...(linked && !link.direct.reachable ? { unreachable: link.direct.why } : {}),
    labels: facts?.labels ?? {},
    ...(facts ? { gpus: facts.gpus } : {}),
    gpusFree: place.gpusFree.length,
    cpu: { total: facts?.resources.cpu ?? 0, free: place.cpuFree },
    memoryBytes: { total: facts?.resources.memoryBytes ?? 0, free: place.memoryFreeBytes },
    drivers: [...place.drivers],
    images: [...node.images],
    runners: place.runners,
    host: facts?.host ?? {},
    lastSeenAt: linked ? at.now : record.lastSeenAt,
  };
}

function stateOfNode(node: Node): NodeView['state'] {
  if (node.link.kind === 'linked') return node.link.silent ? 'suspect' : 'ready';
  return node.link.lostAt === undefined ? 'lost' : 'away';
}

function counts(state: CoreState): CoreCounts {
  const nodes: CoreCounts['nodes'] = { ready: 0, suspect: 0, lost: 0, away: 0 };
  for (const node of state.nodes.values()) nodes[stateOfNode(node)] += 1;
  const apps = [...state.apps.values()].map((app) => {
    const runners: Partial<Record<RunnerState, number>> = {};
    for (const id of app.runners) {
      const runner = state.runners.get(id);
      if (runner) runners[stateOf(runner)] = (runners[stateOf(runner)] ?? 0) + 1;
    }
    return { app: app.record.app, queued: queuedOf(app), inFlight: app.inFlight, runners };
  });
  return { apps, nodes, linksUp: state.links.size, epoch: state.epoch };
}
