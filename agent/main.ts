// The agent, put together: everything is made here, handed what it needs, and taken apart in reverse (DESIGN §2).
//
//   coordinator ◄─ session (dial, keep) ─► core/node-agent ─┬─► attempt (attempts, outbox, call)
//   coordinator ── direct calls ─► http ────────────────────┤         │ slots: runner/pool
//                                                           └─► runner (fleet, life) ─► materials, driver
import { mkdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Agent as HttpAgent } from 'undici';
import type { Chance } from '../shared/chance.ts';
import { sleep, type Clock } from '../shared/clock.ts';
import { asFailure } from '../shared/failure.ts';
import type { NodeId } from '../shared/ids.ts';
import { limits } from '../shared/limits.ts';
import type { Log } from '../shared/log.ts';
import { formatHostPort, isLoopbackHost, type HostPort } from '../shared/host-port.ts';
import { VERSION } from '../shared/version.ts';
import type { AgentConfig } from './config.ts';
import { lockFolder } from './core/folder-lock.ts';
import { openIdentity } from './core/identity.ts';
import { openWork, type Work } from './core/open-work.ts';
import type { Host } from './host/host.ts';
import { LinuxHost } from './host/linux-host.ts';
import { serveAgentHttp } from './http/server.ts';
import { Facts, type NodeFacts } from './node/facts.ts';
import type { GpuProbe } from './node/gpu-probe.ts';
import { NvidiaGpuProbe } from './node/nvidia-gpu-probe.ts';
import type { Driver } from './runner/driver.ts';
import type { Materials } from './runner/materials.ts';
import { dial } from './session/dial.ts';
import { keepLinked, type RedialPolicy } from './session/keep.ts';
import type { HelloState } from './session/link.ts';

export interface AgentParts {
  clock: Clock;
  chance: Chance;
  log: Log;
  // What this machine has, unless given.
  host?: Host;
  drivers?: readonly Driver[];
  probe?: GpuProbe;
  facts?: Pick<Facts, 'read'>;
  materials?: Materials;
  redial?: RedialPolicy;
}

export interface Agent {
  readonly nodeId: NodeId;
  /** `http://host:port` of its HTTP. */
  readonly url: string;
  /** Takes nothing new, drains as configured, ends its runners and frees everything. Safe to call twice. */
  stop(): Promise<void>;
}

/** How long the first hello waits for GPUs and facts; what comes later is told later. */
const FIRST_LOOK_MS = 3_000;
/** How long a stopping agent waits for its last results to be acknowledged. */
const LAST_ACKS_MS = 500;

/** @throws Failure STORE_LOCKED, STORE_CORRUPT, UNAVAILABLE; what was made is undone first */
export async function startAgent(config: AgentConfig, parts: AgentParts): Promise<Agent> {
  const { clock, chance } = parts;
  const log = parts.log.with({ node: config.name });
  const data = resolve(config.data);
  useTools(config.toolsPath);
  await using undo = new AsyncDisposableStack();
  await mkdir(data, { recursive: true, mode: 0o711 });
  const lock = await lockFolder(data);
  undo.defer(() => lock.release());
  const { nodeId, incarnation } = await openIdentity(data, clock, chance);
  const runnersHttp = runnerConnections();
  undo.defer(() => runnersHttp.destroy());
  const coordinatorHttp = new HttpAgent({ headersTimeout: 60_000, bodyTimeout: 60_000 });
  undo.defer(() => coordinatorHttp.destroy());
  const probe = parts.probe ?? new NvidiaGpuProbe({ clock });
  undo.defer(() => probe.close());
  const stopping = new AbortController();
  undo.defer(() => stopping.abort(new Error('the agent stops')));

  let host: HelloState['host'] = {};
  let advertise: HostPort | undefined;
  const work = await openWork(
    {
      ...{ config, data, clock, chance, log, probe, runnersHttp },
      host: parts.host ?? new LinuxHost({ dataFolder: data, clock }),
      coordinator: { base: httpBase(config.coordinator), clock, dispatcher: coordinatorHttp },
      drivers: parts.drivers,
      materials: parts.materials,
      self: () => ({
        ...{ nodeId, incarnation, version: VERSION, host },
        ...(advertise ? { advertise: formatHostPort(advertise) } : {}),
      }),
    },
    undo,
    stopping.signal,
  );
  const http = await serveAgentHttp({
    listen: config.listen,
    log,
    direct: work.direct,
    uploads: work.uploads,
    healthz: () => ({
      ...{ status: 'ok', node: nodeId, name: config.name, version: VERSION },
      linked: work.node.isLinked,
    }),
    metrics: () => work.metrics.registry.metrics(),
    cacheStats: async () => ({ node: nodeId, ...work.cache.stats() }),
  });
  undo.defer(() => http.close(true));
  advertise = advertised(config, http.address, log);
  const facts = parts.facts ?? new Facts({ clock, dataDir: data });
  const learnt = facts.read(stopping.signal).then((known) => void (host = hostFacts(known)));
  const link = holdLink(config, parts, log, work, learnt, stopping.signal);

  const url = `http://${formatHostPort(http.address)}`;
  log.event('agent.ready', { url, coordinator: config.coordinator, nodeId });
  const rest = undo.move();
  let ended: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    work.pool.close();
    await work.attempts.close(config.drainMs);
    await work.fleet.close();
    await work.attempts.acknowledged(LAST_ACKS_MS);
    stopping.abort(new Error('the agent stops'));
    await link;
    await rest.disposeAsync();
    log.event('agent.stopped');
  };
  return { nodeId, url, stop: () => (ended ??= stop()) };
}

/** Looks at the GPUs from now on, and keeps the link once there was a first look, or time for one. Never rejects. */
async function holdLink(
  config: AgentConfig,
  { clock, chance, redial }: AgentParts,
  log: Log,
  work: Work,
  learnt: Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const looked = new Promise<void>((done) => void work.gpus.run(done, signal));
  const over = new AbortController();
  const late = sleep(clock, FIRST_LOOK_MS, AbortSignal.any([signal, over.signal]));
  await Promise.race([Promise.all([looked, learnt]), late]).catch(() => undefined);
  over.abort();
  late.catch(() => undefined);
  const session = {
    ...{ url: `${config.coordinator}/agent`, token: config.token, clock, chance },
    server: work.node,
  };
  try {
    await keepLinked(
      {
        ...{ clock, chance, log },
        dial: (signal) => dial(session, signal),
        ...(redial ? { policy: redial } : {}),
      },
      signal,
    );
  } catch (thrown) {
    log.error('the session ended', { reason: asFailure(thrown).message });
  }
}

/** Connections to runners: kept open for a moment only, because a request on one that the app just closed fails. */
function runnerConnections(): HttpAgent {
  return new HttpAgent({
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 2_000,
    maxHeaderSize: limits.headerBytes,
    connect: { timeout: 10_000 },
  });
}

/** What the coordinator can dial: as told, or where we listen when that means the same on its side. */
function advertised(config: AgentConfig, address: HostPort, log: Log): HostPort | undefined {
  if (config.advertise) return config.advertise;
  const coordinatorHost = new URL(config.coordinator).hostname.replace(/^\[|\]$/g, '');
  const isAnywhere = address.host === '0.0.0.0' || address.host === '::';
  if (!isAnywhere && (isLoopbackHost(coordinatorHost) || !isLoopbackHost(address.host)))
    return address;
  log.warn('the coordinator cannot dial this agent: it takes queued work only; set --advertise');
  return undefined;
}

function httpBase(coordinator: string): URL {
  return new URL(`${coordinator.replace(/^ws/, 'http')}/`);
}

/** For every program that is started from here on. */
function useTools(path: string | undefined): void {
  const before = process.env['PATH'] ?? '';
  if (path === undefined || before.startsWith(`${path}:`)) return;
  process.env['PATH'] = `${path}:${before}`;
}

function hostFacts(facts: NodeFacts): HelloState['host'] {
  const entries = Object.entries(facts).flatMap(([name, value]): [string, string | number][] => {
    if (typeof value === 'number') return [[name, value]];
    return typeof value === 'string' ? [[name, value.slice(0, 256)]] : [];
  });
  return Object.fromEntries(entries);
}
