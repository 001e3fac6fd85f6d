// An agent on a fake coordinator, with runners in memory, for the tests of the agent: real sockets, a folder of its own,
// everything gone when the test ends.
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agentConfig, type AgentSettings } from '../../agent/config.ts';
import { MemoryHost } from '../../agent/host/memory-host.ts';
import { startAgent, type Agent, type AgentParts } from '../../agent/main.ts';
import type { GpuProbe } from '../../agent/node/gpu-probe.ts';
import type { RunnerSpec } from '../../agent/runner/driver.ts';
import type { Materials } from '../../agent/runner/materials.ts';
import { MemoryDriver, type MemoryApp } from '../../agent/runner/memory-driver.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { newRequestId, newRevisionId, newRunnerId, type RunnerId } from '../../shared/ids.ts';
import { silentLog } from '../../shared/log.ts';
import type { Body } from '../../shared/protocol.ts';
import { attemptToken } from '../../shared/token.ts';
import { FakeCoordinator, type FakeOptions } from './fake-coordinator.ts';

type App = (spec: RunnerSpec) => RequestListener | MemoryApp;

/** Nothing has to be fetched. */
export const bareMaterials: Materials = {
  isCached: async () => true,
  source: async () => ({
    value: { kind: 'process', folder: '/', command: ['app'] },
    release: async () => undefined,
  }),
  weights: async () => ({ value: [], release: async () => undefined }),
  images: () => [],
};

export const noGpus: GpuProbe = { read: async () => ({ kind: 'none' }), close: () => undefined };

export interface BenchOptions {
  app?: App;
  fake?: FakeOptions;
  settings?: AgentSettings;
  parts?: Partial<AgentParts>;
  /** False where no link is to be expected. */
  waits?: boolean;
}

export interface Bench {
  fake: FakeCoordinator;
  agent: Agent;
  driver: MemoryDriver;
  data: string;
  /** Starts another agent on the same folder. */
  again(): Promise<Agent>;
  /** Orders a runner and waits until it is IDLE. */
  ready(changes?: Partial<Body<'startRunner'>>): Promise<RunnerId>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Healthy, and answers every request with its own body. */
export const echo: RequestListener = (request, response) => {
  if (request.url === '/health') return void response.end('ok');
  response.writeHead(200, { 'content-type': request.headers['content-type'] ?? 'text/plain' });
  request.pipe(response);
};

const redial = { backoff: { baseMs: 20, capMs: 50 }, heldMs: 10_000, refusedMs: 30_000 };

export async function bench(options: BenchOptions = {}): Promise<Bench> {
  const data = await mkdtemp(join(tmpdir(), 'runmesh-agent-'));
  const fake = await FakeCoordinator.start(options.fake);
  const driver = new MemoryDriver(options.app ?? (() => echo));
  const start = async (): Promise<Agent> => {
    const config = await agentConfig({
      coordinator: fake.url,
      listen: '127.0.0.1:0',
      data,
      name: 'test',
      ...options.settings,
    });
    return startAgent(config, {
      clock: systemClock,
      chance: systemChance,
      log: silentLog,
      host: new MemoryHost(),
      drivers: [driver],
      probe: noGpus,
      materials: bareMaterials,
      facts: { read: async () => ({ hostname: 'test', missing: [] }) },
      redial,
      ...options.parts,
    });
  };
  const agents = [await start()];
  if (options.waits !== false) await until(() => fake.hellos.length > 0, 'linked');
  return {
    fake,
    driver,
    data,
    agent: agents[0] as Agent,
    async again() {
      const agent = await start();
      agents.push(agent);
      return agent;
    },
    async ready(changes = {}) {
      const order = startOrder(changes);
      fake.send('startRunner', order);
      await fake.next('runner', (r) => r.runnerId === order.runnerId && r.state === 'IDLE');
      return order.runnerId;
    },
    async [Symbol.asyncDispose]() {
      for (const agent of agents) await agent.stop();
      await fake.stop();
      await rm(data, { recursive: true, force: true });
    },
  };
}

export function startOrder(changes: Partial<Body<'startRunner'>> = {}): Body<'startRunner'> {
  const digest = `sha256:${'0'.repeat(64)}` as const;
  return {
    runnerId: newRunnerId(Date.now(), systemChance),
    app: 'acme/app',
    revision: newRevisionId(Date.now(), systemChance),
    source: { kind: 'process', digest, sizeBytes: 1, grant: 'g', command: ['app'] },
    port: 8000,
    env: {},
    gpus: { count: 0 },
    weights: [],
    health: { path: '/health', method: 'GET', timeoutMs: 1_000 },
    slots: 1,
    startupTimeoutMs: 10_000,
    graceMs: 200,
    ...changes,
  };
}

const key = randomBytes(32);

export function assignment(
  runnerId: RunnerId,
  changes: Partial<Body<'assign'>> = {},
): Body<'assign'> {
  const requestId = newRequestId(Date.now(), 0, systemChance);
  const nonce = randomBytes(8).toString('hex');
  const token = attemptToken(key, { partition: 0, epoch: 1, requestId, number: 1, nonce });
  return {
    token,
    requestId,
    number: 1,
    runnerId,
    method: 'POST',
    path: '/predict?x=1',
    headers: [
      ['content-type', 'application/json'],
      ['x-fal-request-id', requestId],
    ],
    input: { kind: 'inline', bytes: new TextEncoder().encode('{"a":1}') },
    timeoutMs: 10_000,
    ...changes,
  };
}

export function bodyText(finished: Body<'finished'>): string {
  const { outcome } = finished;
  if (outcome.kind !== 'response' || outcome.body.kind !== 'inline') return JSON.stringify(outcome);
  return new TextDecoder().decode(outcome.body.bytes);
}

/** Waits until `is` holds; fails after two seconds. */
export async function until(is: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + 2_000;
  while (!(await is())) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
