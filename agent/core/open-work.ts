// The part of the agent that works: slots, runners, attempts, leases, and the figures about them, put together round
// one NodeAgent. What is made here is closed by whoever owns `undo`.
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Dispatcher } from 'undici';
import type { Chance } from '../../shared/chance.ts';
import type { Clock } from '../../shared/clock.ts';
import { asFailure } from '../../shared/failure.ts';
import type { Log } from '../../shared/log.ts';
import { Attempts } from '../attempt/attempts.ts';
import type { CoordinatorHttp } from '../attempt/coordinator-http.ts';
import { Outbox } from '../attempt/outbox.ts';
import type { AgentConfig } from '../config.ts';
import type { Host } from '../host/host.ts';
import { BlobUploads } from '../http/blob-uploads.ts';
import type { DirectParts } from '../http/direct-call.ts';
import { LeaseBook } from '../http/lease-book.ts';
import { agentMetrics, type AgentMetrics } from '../http/metrics.ts';
import type { GpuProbe } from '../node/gpu-probe.ts';
import { Capacity } from '../runner/capacity.ts';
import type { Driver } from '../runner/driver.ts';
import { EndedLogs } from '../runner/ended-logs.ts';
import { Fleet } from '../runner/fleet.ts';
import type { Materials } from '../runner/materials.ts';
import { Pool } from '../runner/pool.ts';
import { ProcessDriver } from '../runner/process-driver.ts';
import { RuncDriver } from '../runner/runc-driver.ts';
import type { HelloState } from '../session/link.ts';
import { GpuWatch } from './gpu-watch.ts';
import { NodeAgent } from './node-agent.ts';
import { openCache, type NodeCache } from './open-cache.ts';

export interface WorkParts {
  config: AgentConfig;
  /** The data folder, absolute. */
  data: string;
  clock: Clock;
  chance: Chance;
  log: Log;
  host: Host;
  probe: GpuProbe;
  /** Connections to runners. */
  runnersHttp: Dispatcher;
  coordinator: CoordinatorHttp;
  /** Absent: those of this machine. */
  drivers: readonly Driver[] | undefined;
  /** Absent: the node's own cache. */
  materials: Materials | undefined;
  /** Who this agent is, and what it knows of its host. */
  self(): Pick<HelloState, 'nodeId' | 'incarnation' | 'version' | 'host'> & { advertise?: string };
}

export interface Work {
  node: NodeAgent;
  fleet: Fleet;
  attempts: Attempts;
  pool: Pool;
  gpus: GpuWatch;
  cache: NodeCache;
  metrics: AgentMetrics;
  direct: DirectParts;
  uploads: BlobUploads;
}

export async function openWork(
  parts: WorkParts,
  undo: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<Work> {
  const { config, data, clock, chance, log, host, runnersHttp: dispatcher, coordinator } = parts;
  const outbox = await Outbox.open({ folder: join(data, 'outbox'), clock, chance, log });
  undo.defer(() => outbox.close());
  const logs = new EndedLogs(join(data, 'logs'));
  await logs.open();
  const drivers = parts.drivers ?? [
    new RuncDriver({ host, dataFolder: data, clock }),
    new ProcessDriver({ host, dataFolder: data, clock }),
  ];
  for (const driver of drivers) await swept(log, driver.name, () => driver.sweep());
  await swept(log, 'host', () => host.sweep());
  // The runners have ended by then: with the bridge, the firewall and the cgroup of all of them nothing is left of us.
  undo.defer(() => swept(log, 'host', () => host.sweep()));
  const pool: Pool = new Pool({ used: (runnerId, isUsed) => fleet.used(runnerId, isUsed) });
  const leases = new LeaseBook();
  const metrics = agentMetrics({
    runners: () => fleet.byState(),
    slots: () => pool.totals,
    attempts: () => ({ running: attempts.running, outbox: outbox.size }),
    isLinked: () => node.isLinked,
    cacheBytes: () => cache.bytesBySource(),
  });
  const cache = await openCache(
    {
      ...{ data, host, clock, chance, log, coordinator },
      allowPrivate: config.allowPrivate,
      imagesChanged: () => node.imagesChanged(),
      pulled: (outcome) => metrics.pulls.inc({ outcome }),
    },
    signal,
  );
  const materials = parts.materials ?? cache.materials;
  const gpus = new GpuWatch({
    ...{ probe: parts.probe, clock, log },
    changed: (report) => node.gpusChanged(report),
  });
  const resources = {
    cpu: config.cpu ?? cpus().length,
    memoryBytes: config.memory ?? totalmem(),
  };
  const fleet = new Fleet({
    ...{ clock, log, drivers, materials, pool, logs, dispatcher },
    capacity: new Capacity(resources),
    gpus: () => gpus.reading,
    report: (report) => node.runnerChanged(report),
  });
  const attempts = new Attempts({
    ...{ clock, chance, log, pool, fleet, outbox, dispatcher, coordinator },
    ended: (outcome) => metrics.attempts.inc({ outcome }),
  });
  const driverStates = await Promise.all(drivers.map(stateOf));
  const { name, labels } = config;
  const node: NodeAgent = new NodeAgent({
    ...{ log, fleet, attempts, leases },
    gpus: () => gpus.report,
    images: () => materials.images(),
    facts: () => ({ name, labels, resources, drivers: driverStates, ...parts.self() }),
  });
  const ended: DirectParts['ended'] = (how) => metrics.directCalls.inc({ how });
  const direct = { clock, pool, fleet, leases, dispatcher, ended };
  const uploads = new BlobUploads({ blobs: cache.blobs, leases });
  return { node, fleet, attempts, pool, gpus, cache, metrics, direct, uploads };
}

/** A3: what earlier lives left is ended and freed; what cannot be is said, and no reason not to start. */
async function swept(log: Log, what: string, sweep: () => Promise<void>): Promise<void> {
  await sweep().catch((thrown: unknown) =>
    log.error('what an earlier life left cannot be swept', {
      what,
      reason: asFailure(thrown).message,
    }),
  );
}

async function stateOf(driver: Driver): Promise<HelloState['drivers'][number]> {
  const unavailable = await driver.unavailable();
  if (unavailable === undefined) return { name: driver.name };
  return { name: driver.name, unavailable: unavailable.slice(0, 1024) };
}
