// A runner's life from the order to the last free byte; and the pure parts it stands on: slots and capacity.
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import { MemoryGpuProbe } from '../../agent/node/memory-gpu-probe.ts';
import type { Gpu } from '../../agent/node/gpu-probe.ts';
import { Capacity } from '../../agent/runner/capacity.ts';
import type { RunnerSpec } from '../../agent/runner/driver.ts';
import type { Materials } from '../../agent/runner/materials.ts';
import { MemoryDriver } from '../../agent/runner/memory-driver.ts';
import { Pool } from '../../agent/runner/pool.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { newRunnerId, type RunnerId } from '../../shared/ids.ts';
import type { RunnerReport } from '../../shared/protocol.ts';
import { mayFollow } from '../../shared/runner-state.ts';
import {
  assignment,
  bareMaterials,
  bench,
  echo,
  startOrder,
  until,
  type Bench,
} from '../fakes/agent-bench.ts';

const id = (): RunnerId => newRunnerId(Date.now(), systemChance);

function gpu(index: number): Gpu {
  return {
    uuid: `GPU-${index}`,
    index,
    minor: index,
    name: 'NVIDIA H100',
    memoryBytes: 80 * 2 ** 30,
    migMode: false,
    migDevices: [],
    problems: [],
  };
}

/** Reports of one runner until it is in `last`. */
async function reports(b: Bench, runnerId: RunnerId, last: string): Promise<RunnerReport[]> {
  const seen: RunnerReport[] = [];
  for (;;) {
    const report = await b.fake.next('runner', (r) => r.runnerId === runnerId);
    seen.push(report);
    if (report.state === last) return seen;
  }
}

t.test('pool: slots are a set of leases (S5)', async (t) => {
  const told: string[] = [];
  const pool = new Pool({ used: (_, isUsed) => told.push(isUsed ? 'used' : 'unused') });
  const [a, b] = [id(), id()];
  t.match(pool.take(a, '1'), { code: 'RUNNER_GONE' });
  pool.open(a, 2);
  t.match(
    [pool.take(a, '1'), pool.take(a, '1'), pool.take(a, '2')],
    [{ kind: 'ok' }, { kind: 'ok' }, { kind: 'ok' }],
  );
  t.match(pool.take(a, '3'), { code: 'SLOTS_FULL' });
  pool.giveBack(a, '3');
  pool.giveBack(b, '1');
  pool.giveBack(a, '1');
  pool.giveBack(a, '1');
  t.strictSame(pool.totals, { slots: 2, taken: 1 });
  let empty = 0;
  pool.drain(a, () => (empty += 1));
  t.match(pool.take(a, '4'), { code: 'RUNNER_GONE' });
  t.equal(empty, 0);
  pool.giveBack(a, '2');
  t.equal(empty, 1);
  t.strictSame(told, ['used', 'unused']);
  pool.open(b, 1);
  pool.close();
  t.match(pool.take(b, '1'), { code: 'NODE_DRAINING' });
});

t.test('pool: never more leases than slots, whatever happens', async () => {
  const step = fc.record({ take: fc.boolean(), lease: fc.integer({ min: 0, max: 9 }) });
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 4 }),
      fc.array(step, { maxLength: 60 }),
      (slots, steps) => {
        let isUsed = false;
        const pool = new Pool({ used: (_, now) => void (isUsed = now) });
        const runner = id();
        pool.open(runner, slots);
        const held = new Set<number>();
        for (const { take, lease } of steps) {
          if (!take) pool.giveBack(runner, `${lease}`);
          if (!take) held.delete(lease);
          if (take && pool.take(runner, `${lease}`).kind === 'ok') held.add(lease);
          if (held.size > slots || pool.totals.taken !== held.size) return false;
          if (isUsed !== held.size > 0) return false;
        }
        return true;
      },
    ),
  );
});

t.test('capacity: all or nothing, and back', async (t) => {
  const capacity = new Capacity({ cpu: 4, memoryBytes: 1_000 });
  const gpus = [gpu(0), gpu(1)];
  const [a, b] = [id(), id()];
  const taken = capacity.reserve(a, { gpus: { count: 1 }, cpu: 3, memoryBytes: 600 }, gpus);
  t.match(taken, { kind: 'reserved', gpus: [{ minor: 0 }] });
  for (const wish of [
    { gpus: { count: 2 } },
    { gpus: { count: 1 }, cpu: 2 },
    { gpus: { count: 0 }, memoryBytes: 500 },
    { gpus: { count: 1, gpu: 'A100' } },
  ])
    t.match(capacity.reserve(b, wish, gpus), { kind: 'refused', reason: String });
  t.strictSame(capacity.free, { cpu: 1, memoryBytes: 400 });
  capacity.release(a);
  t.match(capacity.reserve(b, { gpus: { count: 2 }, cpu: 4 }, gpus), { kind: 'reserved' });
});

t.test('a life in order: environment, states, idempotent orders', async (t) => {
  const specs: RunnerSpec[] = [];
  await using b = await bench({ app: (spec) => (specs.push(spec), echo) });
  const order = startOrder({ env: { GREETING: 'hi', PORT: '1' }, port: 9_000 });
  b.fake.send('startRunner', order);
  b.fake.send('startRunner', order);
  await b.fake.next('runner', ({ state }) => state === 'IDLE');
  t.equal(specs.length, 1, 'an order that is known starts nothing');
  t.strictSame(specs[0]?.env, {
    GREETING: 'hi',
    PORT: '9000',
    FAL_APP_NAME: 'acme/app',
    FAL_JOB_ID: order.runnerId,
  });
  b.fake.send('stopRunner', { runnerId: order.runnerId, how: 'stop' });
  const ended = await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.match(ended, { exit: { kind: 'signal', signal: 'SIGTERM' } });
  t.notOk(ended.failure, 'it ended as it was told to');
  b.fake.heard.length = 0;
  b.fake.send('stopRunner', { runnerId: order.runnerId, how: 'kill' });
  b.fake.send('startRunner', order);
  t.equal((await b.fake.next('runner')).state, 'TERMINATED');
  t.equal((await b.fake.next('runner')).state, 'TERMINATED', 'an ended runner never starts again');
  t.equal(specs.length, 1);
});

t.test(
  'what comes from elsewhere shows as DOCKER_PULL, with progress, and is released',
  async (t) => {
    let held = 0;
    const hold = <T>(value: T) => ({ value, release: async () => void (held -= 1) });
    const materials: Materials = {
      ...bareMaterials,
      isCached: async () => false,
      async source(order, tell, signal) {
        for (let at = 1; at <= 10; at += 1) {
          tell({ what: 'layers', doneBytes: at, totalBytes: 10 });
          await new Promise((resolve) => setTimeout(resolve, 80));
          signal.throwIfAborted();
        }
        held += 1;
        return hold((await bareMaterials.source(order, tell, signal)).value);
      },
      async weights() {
        held += 1;
        return hold([{ source: '/x', target: '/data/x', readOnly: true }]);
      },
    };
    await using b = await bench({ parts: { materials } });
    const order = startOrder();
    b.fake.send('startRunner', order);
    const seen = await reports(b, order.runnerId, 'IDLE');
    const states = seen.map(({ state }) => state).filter((state, at, all) => state !== all[at - 1]);
    t.strictSame(states, ['PENDING', 'DOCKER_PULL', 'SETUP', 'IDLE']);
    const progress = seen.filter((report) => report.progress);
    t.ok(progress.length >= 2 && progress.length <= 5, `at most two a second: ${progress.length}`);
    t.equal(held, 2);
    b.fake.send('stopRunner', { runnerId: order.runnerId, how: 'stop' });
    await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
    t.equal(held, 0, 'released before TERMINATED is said (W1)');

    const other = startOrder();
    b.fake.send('startRunner', other);
    await b.fake.next('runner', ({ state }) => state === 'DOCKER_PULL');
    b.fake.send('stopRunner', { runnerId: other.runnerId, how: 'drain' });
    const end = await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
    t.notOk(end.failure, 'a stop while it pulls is no failure (W2)');
    t.equal(b.driver.runners.size, 0);
  },
);

t.test('starts that fail say why', async (t) => {
  const cases: [string, Parameters<typeof bench>[0], object][] = [
    [
      'driver',
      {
        app: () => {
          throw new Failure('DRIVER_FAILED', 'no such program');
        },
      },
      { code: 'DRIVER_FAILED', message: /no such program/ },
    ],
    [
      'health',
      { app: () => (_, response) => void response.writeHead(503).end() },
      { code: 'STARTUP_TIMEOUT', message: /answers 503/ },
    ],
    [
      'silent',
      { app: () => () => undefined },
      { code: 'STARTUP_TIMEOUT', message: /no answer within/ },
    ],
    [
      'material',
      {
        parts: {
          materials: {
            ...bareMaterials,
            source: async () => {
              throw new Failure('IMAGE_NOT_FOUND', 'no such image');
            },
          },
        },
      },
      { code: 'IMAGE_NOT_FOUND' },
    ],
  ];
  for (const [name, options, failure] of cases) {
    await using b = await bench(options);
    const order = startOrder({
      startupTimeoutMs: 400,
      health: { path: '/health', method: 'GET', timeoutMs: 100 },
    });
    b.fake.send('startRunner', order);
    const told = await reports(b, order.runnerId, 'TERMINATED');
    t.match(told.at(-1), { failure }, name);
    const stopping = told.filter(({ state }) => state === 'TERMINATING');
    t.ok(
      stopping.every((report) => report.failure),
      `${name}: why is known before it is gone`,
    );
    t.equal(b.driver.runners.size, 0, `${name}: nothing is left`);
  }
});

t.test('a process that ends before it is healthy; its output is kept', async (t) => {
  await using b = await bench({ app: () => (_, response) => void response.writeHead(503).end() });
  const order = startOrder();
  b.fake.send('startRunner', order);
  await b.fake.next('runner', ({ state }) => state === 'SETUP');
  await until(() => b.driver.runners.size === 1, 'started');
  b.driver.runners.get(order.runnerId)?.print('Traceback: no CUDA\n');
  b.driver.runners.get(order.runnerId)?.crash({ kind: 'code', code: 3 });
  const ended = await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.match(ended, { exit: { kind: 'code', code: 3 }, failure: { code: 'RUNNER_EXITED' } });
  t.match(ended.failure?.message, /exit code 3.*no CUDA/);
  const read = { readId: 'a', runnerId: order.runnerId, offset: 11, maxBytes: 100 };
  b.fake.send('readLog', read);
  const log = await b.fake.next('log');
  t.match(log, { readId: 'a', offset: 11, end: 19, gone: false, ended: true });
  t.equal(Buffer.from(log.bytes).toString(), 'no CUDA\n');
  b.fake.send('readLog', { ...read, runnerId: id() });
  t.match(await b.fake.next('log'), { gone: true });
});

t.test('stop: SIGTERM, grace, SIGKILL; kill does not wait; drain does', async (t) => {
  await using b = await bench({ app: () => ({ listener: echo, onTerminate: () => undefined }) });
  const stubborn = await b.ready({ graceMs: 150 });
  let fromMs = Date.now();
  b.fake.send('stopRunner', { runnerId: stubborn, how: 'stop' });
  let end = await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.match(end.exit, { kind: 'signal' });
  t.ok(Date.now() - fromMs >= 140, 'the grace was given');
  const patient = await b.ready({ graceMs: 60_000 });
  fromMs = Date.now();
  b.fake.send('stopRunner', { runnerId: patient, how: 'stop' });
  await b.fake.next('runner', ({ state }) => state === 'TERMINATING');
  b.fake.send('stopRunner', { runnerId: patient, how: 'kill' });
  end = await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.ok(Date.now() - fromMs < 2_000, 'asking harder wins (W2)');
  b.fake.heard.length = 0;
  const drained = await b.ready({ graceMs: 0 });
  b.fake.send('assign', assignment(drained));
  b.fake.send('stopRunner', { runnerId: drained, how: 'drain' });
  await b.fake.next('finished', ({ outcome }) => outcome.kind === 'response');
  await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
});

t.test('a signal that cannot be sent keeps nothing (W1)', async (t) => {
  await using b = await bench();
  const runnerId = await b.ready({ graceMs: 10 });
  const runner = b.driver.runners.get(runnerId);
  if (!runner) return void t.fail('it runs');
  const asked: string[] = [];
  runner.signal = async (name) => {
    asked.push(name);
    throw new Error('no such tool');
  };
  // As one that no signal reaches: gone when it is removed.
  b.fake.send('stopRunner', { runnerId, how: 'kill' });
  await until(() => asked.includes('SIGKILL'), 'SIGTERM was not the last word');
  runner.crash({ kind: 'signal', signal: 'SIGKILL' });
  await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.equal(b.driver.runners.size, 0, 'it was removed');
});

t.test('the health path is a path of the runner, whatever it looks like', async (t) => {
  const asked: (string | undefined)[] = [];
  const elsewhere = createServer((_, response) => void response.end('ok')).listen(0, '127.0.0.1');
  elsewhere.on('request', () => t.fail('another host was asked'));
  await new Promise((resolve) => elsewhere.once('listening', resolve));
  t.teardown(() => elsewhere.close());
  const { port } = elsewhere.address() as AddressInfo;
  const listener: RequestListener = (request, response) => {
    asked.push(request.url);
    response.end();
  };
  await using b = await bench({ app: () => listener });
  const path = `//127.0.0.1:${port}/health?a`;
  await b.ready({ health: { path, method: 'GET', timeoutMs: 1_000 } });
  t.strictSame(asked, [path]);
});

t.test('states follow each other as the table says (W3)', async (t) => {
  await using b = await bench();
  const runnerId = await b.ready();
  b.fake.heard.length = 0;
  for (let at = 0; at < 5; at += 1) {
    b.fake.send('assign', assignment(runnerId));
    await b.fake.next('finished');
  }
  await b.fake.next('runner', ({ state }) => state === 'RUNNING');
  t.equal(
    b.fake.heard.filter(({ name }) => name === 'runner').length,
    0,
    'a busy one is told once',
  );
  await b.fake.next('runner', ({ state }) => state === 'IDLE');
  b.fake.send('stopRunner', { runnerId, how: 'drain' });
  const seen = await reports(b, runnerId, 'TERMINATED');
  for (const [at, { state }] of seen.entries()) {
    const before = seen[at - 1]?.state;
    if (before) t.ok(mayFollow(before, state), `${before} → ${state}`);
  }
});

t.test('GPUs are granted whole, and a full node says so', async (t) => {
  const specs: RunnerSpec[] = [];
  const probe = new MemoryGpuProbe(systemClock, {
    kind: 'gpus',
    gpus: [gpu(0), gpu(1)],
    unreadable: [],
  });
  await using b = await bench({
    app: (spec) => (specs.push(spec), echo),
    parts: { probe },
    settings: { cpu: 4 },
  });
  const runnerId = await b.ready({ gpus: { count: 2 } });
  t.strictSame(
    specs[0]?.gpus.map(({ uuid }) => uuid),
    ['GPU-0', 'GPU-1'],
  );
  for (const [changes, reason] of [
    [{ gpus: { count: 1 } }, 'GPUs free'],
    [{ cpu: 5 }, 'CPU cores'],
  ] as const) {
    const order = startOrder(changes);
    b.fake.send('startRunner', order);
    const refused = await b.fake.next('runner', (r) => r.runnerId === order.runnerId);
    t.match(refused, { state: 'TERMINATED', failure: { code: 'NODE_FULL', message: reason } });
  }
  b.fake.send('stopRunner', { runnerId, how: 'kill' });
  await b.fake.next('runner', (r) => r.state === 'TERMINATED' && r.runnerId === runnerId);
  await b.ready({ gpus: { count: 1 } });
});

t.test('nobody listens on the port: the message names it', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  server.close();
  const deaf = new MemoryDriver(() => echo);
  const start = deaf.start.bind(deaf);
  deaf.start = async (spec, signal) =>
    Object.defineProperty(await start(spec, signal), 'address', {
      value: { host: '127.0.0.1', port },
    });
  await using b = await bench({ parts: { drivers: [deaf] } });
  const order = startOrder({ startupTimeoutMs: 300 });
  b.fake.send('startRunner', order);
  const ended = await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.match(ended.failure, { code: 'STARTUP_TIMEOUT', message: `nobody listens on port ${port}` });
});
