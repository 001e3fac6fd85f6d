// Plays one seed: a workload under faults, then calm; gives what the checkers found.
import { appSpec, type AppFile } from '../../shared/app-spec.ts';
import type { RequestId } from '../../shared/ids.ts';
import { World, type WorldOptions } from './world.ts';

export interface Played {
  seed: number;
  found: string[];
  trace: string[];
  steps: number;
  /** Requests that were acknowledged. */
  requests: number;
}

const ROUGH_MS = 30_000;
/** FAILURE_DELAY alone may take 600 s. */
const CALM_MS = 4 * 3_600_000;

const APPS: Partial<AppFile>[] = [
  { app: 'acme/one', scaling: { max_concurrency: 2, keep_alive: 5 } },
  { app: 'acme/many', scaling: { max_concurrency: 3, max_multiplexing: 3, keep_alive: 3 } },
];

export async function play(options: WorldOptions): Promise<Played> {
  const world = new World(options);
  try {
    await rough(world);
    await calm(world);
  } catch (thrown) {
    world.checkers.violate(`thrown: ${thrown instanceof Error ? thrown.stack : String(thrown)}`);
  }
  return {
    seed: options.seed,
    found: world.checkers.found,
    trace: world.trace,
    steps: world.steps,
    requests: world.checkers.acknowledged.size,
  };
}

async function rough(world: World): Promise<void> {
  const { clock, draw, disk, agents } = world;
  await world.startCoordinator();
  for (const agent of agents) world.dialForEver(agent);
  for (const file of APPS) void deploy(world, file);
  disk.failing = draw.happens(0.5) ? 0.003 : 0;
  disk.slowness = draw.one([1, 1, 10, 60]) ?? 1;
  const everyMs = draw.one([500, 3_000, 10_000]) ?? 3_000;
  work(world);
  let nextFaultAt = draw.below(everyMs);
  while (clock.elapsed() < ROUGH_MS && world.checkers.found.length === 0) {
    if (clock.elapsed() >= nextFaultAt) {
      await fault(world);
      nextFaultAt = clock.elapsed() + draw.below(2 * everyMs);
    }
    if (!(await world.step(ROUGH_MS))) break;
    if (!world.life && draw.happens(0.2)) await world.startCoordinator();
  }
}

async function fault(world: World): Promise<void> {
  const { draw, agents } = world;
  const agent = draw.one(agents);
  if (!agent) return;
  const kind = draw.below(100);
  if (kind < 12) world.crashCoordinator();
  else if (kind < 16) await world.stopCoordinator();
  else if (kind < 30) world.cutLink(agent);
  else if (kind < 42) world.partition(agent, draw.between(5_000, 25_000));
  else if (kind < 45) for (const each of agents) world.partition(each, draw.between(5_000, 60_000));
  else if (kind < 60) world.crashAgent(agent);
  else if (kind < 75) world.silence(agent);
  else if (kind < 85) {
    const runner = draw.one([...agent.runners.keys()]);
    if (runner) agent.killRunner(runner);
  } else if (kind < 90) {
    agent.stopInOrder();
    world.clock.after(1_500, () => world.crashAgent(agent));
  } else {
    const file = draw.one(APPS);
    if (file) void deploy(world, file);
  }
}

async function calm(world: World): Promise<void> {
  const { clock, disk, checkers } = world;
  world.isRough = false;
  disk.failing = 0;
  world.say('calm');
  // An agent that is stopping is started again.
  for (const agent of world.agents) if (agent.stopping) world.crashAgent(agent);
  if (!world.life) await world.startCoordinator();
  for (const file of APPS)
    if (!world.core?.state.apps.has(file.app ?? '')) void deploy(world, file);
  const until = clock.elapsed() + CALM_MS;
  let quietSince = clock.elapsed();
  while (checkers.found.length === 0 && clock.elapsed() < until) {
    if (!(await world.step(until))) break;
    if (world.steps % 20 > 0) continue;
    if (!isQuiet(world)) quietSince = clock.elapsed();
    else if (clock.elapsed() > quietSince + 30_000) break;
  }
  if (checkers.found.length > 0 || !world.core) return;
  checkers.queues(world.core, disk);
  checkers.nothingLeft(world.core, disk);
  for (const agent of world.agents) {
    for (const token of agent.outbox.keys()) checkers.violate(`A1: ${agent.name} keeps ${token}`);
    for (const [id, { report }] of agent.runners)
      if (!world.core.state.runners.has(id))
        checkers.violate(`S1: ${agent.name} has ${id} (${report.state}), which nobody wants`);
  }
}

function isQuiet(world: World): boolean {
  const { core, disk } = world;
  if (!core || disk.isBusy || core.state.flights.size > 0 || core.state.waitingCalls.size > 0)
    return false;
  for (const key of disk.memory.entries.keys())
    if (/^[0-9a-f]+\/(ready|due|flight)\//.test(key)) return false;
  return world.agents.every((agent) => agent.linked && agent.outbox.size === 0);
}

async function deploy(world: World, file: Partial<AppFile>): Promise<void> {
  const spec = appSpec.parse({ image: 'demo:1', ...file });
  await world.ask('deploy', { spec, imageDigest: `sha256:${'a'.repeat(64)}` });
}

/** Submits, cancels and calls all along. */
function work(world: World): void {
  const { clock, draw } = world;
  const known: { id: RequestId; app: string }[] = [];
  const once = async (): Promise<void> => {
    const app = draw.one(APPS)?.app ?? '';
    const kind = draw.below(10);
    if (kind < 7) {
      const id = await world.submit({
        app,
        method: 'POST',
        path: '/',
        query: '',
        headers: [],
        input: { kind: 'inline', bytes: Buffer.from('{}') },
        priority: draw.happens(0.3) ? 1 : 0,
        noRetry: draw.happens(0.1),
        ...(draw.happens(0.2) ? { startTimeoutMs: Math.round(draw.between(200, 20_000)) } : {}),
      });
      if (id) known.push({ id, app });
    } else if (kind < 8) await world.call(app);
    else {
      const one = draw.one(known);
      if (one) await world.ask('cancel', { app: one.app, requestId: one.id });
    }
  };
  const again = (): void => {
    if (!world.isRough) return;
    const burst = draw.happens(0.1) ? 10 : 1;
    for (let count = 0; count < burst; count += 1) void once();
    clock.after(draw.below(2_500), again);
  };
  again();
}
