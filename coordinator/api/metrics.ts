// What /metrics shows. Gauges that fal names are read from the core at each scrape; counters are counted where the
// thing happens: the API counts submits and calls, the shell ends and commits, through this object.
import { Counter, Gauge, Histogram, collectDefaultMetrics, type Registry } from 'prom-client';
import type { CoordinatorPort } from './port.ts';

export interface Metrics {
  submitted(app: string): void;
  /** A queued request has its terminal result. */
  completed(app: string, status: number): void;
  /** A direct call is over. */
  called(app: string, status: number): void;
  /** One commit of the store, synced or not. */
  committed(durationMs: number): void;
}

/** Counters of the coordinator, registered in `registry`; call once. */
export function openMetrics(registry: Registry): Metrics {
  const registers = [registry];
  const submitted = new Counter({
    name: 'runmesh_requests_submitted_total',
    help: 'Queued requests that were accepted and are durable.',
    labelNames: ['application'],
    registers,
  });
  const completed = new Counter({
    name: 'runmesh_requests_completed_total',
    help: 'Queued requests with a terminal result, by its HTTP status.',
    labelNames: ['application', 'status'],
    registers,
  });
  const called = new Counter({
    name: 'runmesh_calls_total',
    help: 'Direct calls, by the HTTP status that the caller got.',
    labelNames: ['application', 'status'],
    registers,
  });
  const committed = new Histogram({
    name: 'runmesh_commit_seconds',
    help: 'Time that one commit of the store took.',
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
    registers,
  });
  return {
    submitted: (application) => submitted.inc({ application }),
    completed: (application, status) => completed.inc({ application, status }),
    called: (application, status) => called.inc({ application, status }),
    committed: (durationMs) => committed.observe(durationMs / 1000),
  };
}

/** Gauges of the core and those of the process; call once. The result brings the core's up to date for a scrape. */
export function watchCounts(registry: Registry, port: CoordinatorPort): () => Promise<void> {
  const registers = [registry];
  const gauge = (name: string, help: string, labelNames: string[] = []): Gauge =>
    new Gauge({ name, help, labelNames, registers });
  const application = ['application'];
  const runners = gauge('fal_app_runners', 'Runners by state.', ['application', 'state']);
  const queued = gauge('fal_app_queue_size', 'Requests that wait.', application);
  const inFlight = gauge('fal_app_concurrent_requests', 'Requests on runners.', application);
  const nodes = gauge('runmesh_nodes', 'Nodes by state.', ['state']);
  const links = gauge('runmesh_links', 'Agents whose link stands.');
  const epoch = gauge('runmesh_epoch', 'Epoch of this coordinator: rises at every start.');
  collectDefaultMetrics({ register: registry });
  return async () => {
    const counts = await port.query('counts', {});
    epoch.set(counts.epoch);
    links.set(counts.linksUp);
    for (const each of [runners, queued, inFlight, nodes]) each.reset();
    for (const [state, count] of Object.entries(counts.nodes)) nodes.set({ state }, count);
    for (const { app, ...of } of counts.apps) {
      queued.set({ application: app }, of.queued);
      inFlight.set({ application: app }, of.inFlight);
      for (const [state, count] of Object.entries(of.runners))
        runners.set({ application: app, state }, count);
    }
  };
}
