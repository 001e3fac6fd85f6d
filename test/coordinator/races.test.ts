// Races between callers, agents, links, time and restarts: each case is one that once went wrong.
import t from 'tap';
import { MemoryDisk, openMemoryStore } from '../../coordinator/store/memory-store.ts';
import { keys } from '../../coordinator/store/keys.ts';
import { Failure } from '../../shared/failure.ts';
import { answered, CoreWorld, type FakeAgent } from '../fakes/core-world.ts';

async function world(disk = new MemoryDisk()): Promise<CoreWorld> {
  const made = new CoreWorld(async () => openMemoryStore(disk));
  await made.shell.start();
  return made;
}

/** The acts of the world that go over the agent's link, by name, in order. */
function heard(w: CoreWorld, agent: FakeAgent): string[] {
  return w.acts.flatMap((act) => {
    if (act.act === 'welcome' && act.linkId === agent.linkId) return ['welcome'];
    return act.act === 'send' && act.linkId === agent.linkId ? [act.message.name] : [];
  });
}

void t.test('an end that says nothing about the request runs it again, uncharged', async (t) => {
  for (const code of [
    'NODE_DRAINING',
    'SHUTTING_DOWN',
    'SLOTS_FULL',
    'RUNNER_GONE',
    'ORIGIN_UNAVAILABLE',
    'LINK_LOST',
  ] as const) {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    const id = await w.submit();
    await node.ready();
    const token = node.got('assign')[0]?.token ?? '';
    await node.started(token);
    await node.finish(token, { kind: 'failed', code, message: 'x' });
    t.match(await w.record(id), { attempts: 0, state: { kind: 'ready' } }, code);
    t.equal(node.got('ack').length, 1, `${code} is acknowledged`);
    t.match(w.query('app', { app: 'acme/cutout' }), { inFlight: 0, queued: 1 });
  }
});

void t.test('nothing is sent on a link before its welcome', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  await w.deploy({ scaling: { max_concurrency: 2, min_concurrency: 2 } });
  await w.settle();
  const [first, second] = node.got('startRunner');
  await node.report(second?.runnerId as never, 'TERMINATED', {
    failure: { code: 'RUNNER_EXITED', message: 'exit 1' },
  });
  t.equal(w.query('runners', {}).filter((one) => one.state === 'FAILURE_DELAY').length, 1);
  await node.report(first?.runnerId as never, 'SETUP');
  await node.drop();
  // It became ready while the link was down: the success wakes the delayed one, on this very node.
  const report = node.runners.get(first?.runnerId as never);
  if (!report) throw new Error('no report');
  node.runners.set(report.runnerId, { ...report, state: 'IDLE' });
  await node.hello();
  t.equal(heard(w, node)[0], 'welcome');
  t.ok(heard(w, node).includes('startRunner'));
});

void t.test('a node that said it is full is asked again, less and less often', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  await w.deploy({ scaling: { max_concurrency: 1 } });
  await w.submit();
  await w.settle();
  const refuse = async (): Promise<void> => {
    const start = node.got('startRunner').at(-1);
    if (start)
      await node.report(start.runnerId, 'TERMINATED', {
        failure: { code: 'NODE_FULL', message: 'full' },
      });
  };
  await refuse();
  await w.move(1_001);
  t.equal(node.got('startRunner').length, 2, 'after a second');
  await refuse();
  await w.move(1_001);
  t.equal(node.got('startRunner').length, 2);
  await w.move(1_000);
  t.equal(node.got('startRunner').length, 3, 'then after two');
  for (let count = 0; count < 60; count += 1) {
    await refuse();
    await w.move(1_001);
  }
  t.ok(node.got('startRunner').length < 12, `${node.got('startRunner').length} starts in a minute`);
});

void t.test('refusals of a runner come less and less often, and end no request', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  await w.deploy({ scaling: { max_concurrency: 1 } });
  const id = await w.submit();
  await node.ready();
  for (let count = 0; count < 120; count += 1) {
    const { state } = await w.record(id);
    if (state.kind === 'flight')
      await node.refuse(node.got('assign').at(-1)?.token ?? '', 'SLOTS_FULL');
    await w.move(1_000);
  }
  t.match((await w.record(id)).state, { kind: 'ready' }, 'two minutes of refusals');
  t.ok(node.got('assign').length < 20, `${node.got('assign').length} dispatches`);
});

void t.test('a node that is back keeps its attempts although it was just given up', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  await w.deploy({ scaling: { max_concurrency: 1 } });
  const id = await w.submit();
  await node.ready();
  const token = node.got('assign')[0]?.token ?? '';
  await node.started(token);
  await node.drop();
  const other = w.submit();
  w.clock.move(10_000);
  // A commit is under way, so that the hello arrives before the requeue of the lost node is applied.
  await node.hello({ attempts: [{ token, phase: 'running' }] });
  t.match(await w.record(id), { attempts: 1, state: { kind: 'flight', flight: { number: 1 } } });
  await node.finish(token);
  t.match((await w.record(id)).state, { kind: 'done', end: { status: 200 } });
  t.match(node.got('assign').at(-1), { requestId: await other });
  t.match(w.query('app', { app: 'acme/cutout' }), { inFlight: 1 });
});

void t.test('a cancel that its agent could not hear is said again', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  const app = await w.deploy({ scaling: { max_concurrency: 1 } });
  const id = await w.submit();
  await node.ready();
  const token = node.got('assign')[0]?.token ?? '';
  await node.started(token);
  await node.drop();
  t.equal(await w.ask('cancel', { app, requestId: id }), 'requested');
  await node.hello({ attempts: [{ token, phase: 'running' }] });
  t.match(node.got('cancel'), [{ token }]);
  t.equal(heard(w, node)[0], 'welcome');
});

void t.test(
  'a draining runner goes on draining when its link or the coordinator comes back',
  async (t) => {
    const disk = new MemoryDisk();
    const w = await world(disk);
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    await w.submit();
    const [id] = await node.ready();
    if (!id) throw new Error('no runner');
    const token = node.got('assign')[0]?.token ?? '';
    await node.started(token);
    await w.deploy({ scaling: { max_concurrency: 1 } });
    await node.report(id, 'DRAINING');
    const stopped = (of: CoreWorld): unknown =>
      of.acts.findLast((act) => act.act === 'welcome' && act.linkId === node.linkId);
    await node.drop();
    await node.hello({ attempts: [{ token, phase: 'running' }] });
    t.match(stopped(w), { stop: [] }, 'the link');
    t.match(node.got('stopRunner'), [{ runnerId: id, how: 'drain' }]);
    await w.shell.stop();

    const again = new CoreWorld(async () => openMemoryStore(disk));
    await again.shell.start();
    Object.assign(node, { world: again });
    await node.hello({ attempts: [{ token, phase: 'running' }] });
    t.match(stopped(again), { stop: [] }, 'the coordinator');
    t.match(node.got('stopRunner'), [{ runnerId: id, how: 'drain' }]);
  },
);

void t.test('a runner of an app that nobody knows is told to stop', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  await node.report('r00000000000000001' as never, 'IDLE', {
    app: 'no/such',
    revision: 'v00000000000000001' as never,
  });
  t.match(node.got('stopRunner'), [{ runnerId: 'r00000000000000001' }]);
  t.equal(w.query('runners', {}).length, 0);
});

void t.test(
  'after a crash a node that was linked for days is waited for, and then given up',
  async (t) => {
    const disk = new MemoryDisk();
    const w = await world(disk);
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    const id = await w.submit();
    await node.ready();
    await node.started(node.got('assign')[0]?.token ?? '');
    disk.open = false; // kill -9

    const again = new CoreWorld(async () => openMemoryStore(disk));
    again.clock.jumpWall(3 * 86_400_000);
    await again.shell.start();
    await again.submit();
    t.equal(again.query('runners', {}).length, 0, 'nothing is started before it had its time');
    await again.move(29_000);
    t.match((await again.record(id)).state, { kind: 'flight' });
    await again.move(1_001);
    t.match((await again.record(id)).state, { kind: 'ready' });
  },
);

void t.test('a node that is heard again is asked to hold what waits for a place', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  const about = { linkId: node.linkId, nodeId: node.nodeId };
  w.shell.apply({ type: 'linkSilent', ...about });
  await w.deploy();
  await w.submit();
  await w.settle();
  t.match(w.query('runners', {}), [{ state: 'PENDING', reason: 'a: not ready' }]);
  w.shell.apply({ type: 'linkHeard', ...about });
  await w.settle();
  t.equal(node.got('startRunner').length, 1);
});

void t.test(
  'most nodes lost at once: we are cut off, and nothing is placed again for a while',
  async (t) => {
    const w = await world();
    const nodes = [await w.agent('a'), await w.agent('b'), await w.agent('c'), await w.agent('d')];
    await w.deploy({ scaling: { max_concurrency: 4, min_concurrency: 4 } });
    for (const node of nodes) await node.ready();
    const ids = [await w.submit(), await w.submit(), await w.submit(), await w.submit()];
    await w.settle();
    const [a, b, c] = nodes;
    if (!a || !b || !c) throw new Error('no nodes');
    const token = a.got('assign')[0]?.token ?? '';
    for (const node of [a, b, c]) await node.drop();
    await w.move(10_001);
    for (const id of ids) t.match((await w.record(id)).state, { kind: 'flight' }, 'held');
    t.equal(
      w.acts.filter((act) => act.act === 'record' && act.name === 'node.mass_loss').length,
      1,
    );
    await a.hello({ attempts: [{ token, phase: 'running' }] });
    await w.move(40_000);
    const kinds = await Promise.all(ids.map(async (id) => (await w.record(id)).state.kind));
    t.equal(kinds.filter((kind) => kind === 'ready').length, 2, 'in the end they are given up');
  },
);

void t.test(
  'direct calls: what frees a slot is performed at once, what it plans keeps its turn',
  async (t) => {
    const disk = new MemoryDisk();
    let free: (() => void) | undefined;
    let held = false;
    const w = new CoreWorld(async () => {
      const store = openMemoryStore(disk);
      return {
        get: (key) => store.get(key),
        getMany: (names) => store.getMany(names),
        scan: (range, options) => store.scan(range, options),
        acquire: (partitions, holder, now) => store.acquire(partitions, holder, now),
        close: () => store.close(),
        commit: async (batches, durability) => {
          if (held) await new Promise<void>((done) => (free = done));
          await store.commit(batches, durability);
        },
      };
    });
    await w.shell.start();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    held = true;
    const before = node.linkId;
    void node.hello();
    await w.settle();
    void w.ask('call', { app: 'acme/cutout', callId: 1 });
    await w.settle();
    t.not(node.linkId, before);
    t.same(heard(w, node), [], 'no start before the welcome');
    held = false;
    free?.();
    await w.settle();
    t.same(heard(w, node), ['welcome', 'startRunner']);
  },
);

void t.test(
  'a stop commits what is under way, and closes the disk also when that fails',
  async (t) => {
    const disk = new MemoryDisk();
    let broken = false;
    const w = new CoreWorld(async () => {
      const store = openMemoryStore(disk);
      return Object.assign(Object.create(store) as typeof store, {
        get: (key: string) => store.get(key),
        getMany: (names: string[]) => store.getMany(names),
        scan: (range: never) => store.scan(range),
        acquire: (partitions: number[], holder: string, now: number) =>
          store.acquire(partitions, holder, now),
        close: () => store.close(),
        commit: async (batches: never, durability: never) => {
          await new Promise((done) => setImmediate(done));
          if (broken) throw new Failure('STORE_FAILED', 'no', { cause: new Error('EIO') });
          await store.commit(batches, durability);
        },
      });
    });
    await w.shell.start();
    await w.deploy();
    const first = w.submit();
    const second = w.submit();
    await w.shell.stop();
    const ids = await Promise.all([first, second]);
    for (const id of ids) t.ok(disk.entries.has(keys.request(id)));
    t.equal(disk.open, false);

    await t.test('and with a disk that refuses', async (t) => {
      const v = await world(disk);
      await v.shell.stop();
      broken = true;
      t.equal(disk.open, false);
      const u = new CoreWorld(async () => {
        const store = openMemoryStore(disk);
        return {
          get: (key) => store.get(key),
          getMany: (names) => store.getMany(names),
          scan: (range, options) => store.scan(range, options),
          acquire: (partitions, holder, now) => store.acquire(partitions, holder, now),
          close: () => store.close(),
          commit: () => Promise.reject(new Failure('STORE_FAILED', 'no')),
        };
      });
      await u.shell.start();
      const unknown = u.submit().catch((failure: Failure) => failure.code);
      await u.shell.stop().catch(() => undefined);
      t.equal(disk.open, false, 'the disk is closed');
      t.equal(await unknown, 'STORE_FAILED', 'who waits hears that the outcome is unknown');
    });
  },
);

void t.test('one damaged record does not hide the others from a hello', async (t) => {
  const disk = new MemoryDisk();
  const w = await world(disk);
  const node = await w.agent('a');
  await w.deploy({ scaling: { max_concurrency: 1, max_multiplexing: 2 } });
  const [bad, good] = [await w.submit(), await w.submit()];
  await node.ready();
  const tokens = node.got('assign').map((one) => one.token);
  await w.shell.stop();
  disk.entries.get(keys.request(bad))?.fill(7, 8, 12);
  const again = await world(disk);
  Object.assign(node, { world: again });
  await node.hello({ attempts: tokens.map((token) => ({ token, phase: 'running' })) });
  const welcome = again.acts.findLast((act) => act.act === 'welcome');
  t.match(welcome, { revoke: [tokens[0]] });
  t.match((await again.record(good)).state, { kind: 'flight' });
});

void t.test(
  'a defect of the core throws it away instead of going on with half a step',
  async (t) => {
    const w = await world();
    await w.deploy();
    const { core } = w;
    core.apply = () => {
      throw new Error('a defect');
    };
    await t.rejects(w.submit(), { code: 'INTERNAL' });
    await w.move(1_000);
    t.not(w.core, core);
    const id = await w.submit();
    t.match((await w.record(id)).state, { kind: 'ready' });
    t.equal(answered(200).kind, 'response');
  },
);

void t.test(
  'what an agent reported between its hello and the welcome is asked for again',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    await w.submit();
    await w.settle();
    const id = node.got('startRunner')[0]?.runnerId;
    if (!id) throw new Error('no runner');
    await node.report(id, 'SETUP');
    await node.drop();
    await node.hello();
    t.match(
      node.got('startRunner'),
      [{ runnerId: id }],
      'an order that is known is answered by its state',
    );
    await node.report(id, 'IDLE');
    t.equal(node.got('assign').length, 1);
  },
);
