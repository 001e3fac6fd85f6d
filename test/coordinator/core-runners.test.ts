// Runners and slots in the core, through its shell, over the in-memory store: scaling, starts that fail, refusals, direct calls.
import t from 'tap';
import { openMemoryStore, MemoryDisk } from '../../coordinator/store/memory-store.ts';
import type { RequestId } from '../../shared/ids.ts';
import { CoreWorld } from '../fakes/core-world.ts';

async function world(disk = new MemoryDisk()): Promise<CoreWorld> {
  const made = new CoreWorld(async () => openMemoryStore(disk));
  await made.shell.start();
  return made;
}

void t.test(
  'S3, S4: scale down takes idle runners only; a deploy drains the busy and stops the idle',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 2, min_concurrency: 2 } });
    await node.ready();
    const id = await w.submit();
    await w.settle();
    const busy = node.got('assign')[0]?.runnerId;
    await w.deploy({ scaling: { max_concurrency: 2 } });
    const stops = node.got('stopRunner');
    t.equal(stops.find((one) => one.runnerId === busy)?.how, 'drain');
    t.equal(stops.find((one) => one.runnerId !== busy)?.how, 'stop');
    await node.finish(node.got('assign')[0]?.token ?? '');
    t.match((await w.record(id)).state, { kind: 'done', end: { status: 200 } });
  },
);

void t.test('failed starts: FAILURE_DELAY of 30, 60 s; the first success wakes all', async (t) => {
  const w = await world();
  const node = await w.agent('a');
  await w.deploy({ scaling: { max_concurrency: 1 } });
  await w.submit();
  const fail = async (): Promise<void> => {
    const start = node.got('startRunner').at(-1);
    if (!start) return;
    await node.report(start.runnerId, 'SETUP');
    await node.report(start.runnerId, 'TERMINATED', {
      failure: { code: 'RUNNER_EXITED', message: 'exit 1' },
    });
  };
  await w.settle();
  await fail();
  t.match(w.query('runners', {}), [{ state: 'FAILURE_DELAY', reason: /next try in 30 s/ }]);
  t.match(w.query('app', { app: 'acme/cutout' }), {
    waiting: {
      code: 'failure_delay',
      text: '1 start failed in a row, the last with RUNNER_EXITED: exit 1; the next one is held back',
    },
    failures: 1,
  });
  await w.move(29_999);
  t.equal(node.got('startRunner').length, 1);
  await w.move(2);
  t.equal(node.got('startRunner').length, 2);
  await fail();
  await w.move(59_000);
  t.equal(node.got('startRunner').length, 2);
  await w.move(1_001);
  t.equal(node.got('startRunner').length, 3);
  await node.ready();
  t.match(w.query('app', { app: 'acme/cutout' }), { failures: 0 });
});

void t.test(
  'a start that times out is delayed from the moment its stop is told, and counts once',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    await w.submit();
    await w.settle();
    const runnerId = node.got('startRunner').at(-1)?.runnerId;
    if (runnerId === undefined) return void t.fail('no start');
    const failure = { code: 'STARTUP_TIMEOUT', message: 'not ready within 2000 ms' } as const;
    await node.report(runnerId, 'SETUP');
    await node.report(runnerId, 'TERMINATING', { failure });
    t.equal(node.got('startRunner').length, 1, 'nothing is started meanwhile');
    await node.report(runnerId, 'TERMINATED', { failure });
    t.match(w.query('app', { app: 'acme/cutout' }), { failures: 1 });
    await w.move(29_000);
    t.equal(node.got('startRunner').length, 1);
    await w.move(2_000);
    t.equal(node.got('startRunner').length, 2);
  },
);

void t.test(
  'no room: the runner stays PENDING with the reason of each node, and goes when a node joins',
  async (t) => {
    const w = await world();
    await w.agent('small');
    await w.deploy({ machine: { gpus: 1, gpu: 'H100' } });
    await w.submit();
    await w.settle();
    t.match(w.query('runners', {}), [
      { state: 'PENDING', reason: /small: 0 fitting of 0 GPUs free, 1 H100 wanted/ },
    ]);
    t.match(w.query('app', { app: 'acme/cutout' })?.waiting, { code: 'no_room' });
    const big = await w.agent('big', {
      gpus: {
        kind: 'gpus',
        gpus: [
          {
            uuid: 'GPU-1',
            index: 0,
            minor: 0,
            name: 'NVIDIA H100 80GB HBM3',
            memoryBytes: 8e10,
            mig: false,
          },
        ],
      },
    });
    t.match(big.got('startRunner'), [{ gpus: { count: 1, name: 'H100' } }]);
  },
);

void t.test(
  'max_multiplexing: one runner takes several; refusals go elsewhere and cost nothing',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_multiplexing: 3, max_concurrency: 1 } });
    const ids = [await w.submit(), await w.submit(), await w.submit(), await w.submit()];
    await w.settle();
    t.equal(node.got('startRunner').length, 1);
    await node.ready();
    t.equal(node.got('assign').length, 3, 'as many as there are slots');
    await node.refuse(node.got('assign')[0]?.token ?? '', 'SLOTS_FULL');
    t.match(await w.record(ids[0] as RequestId), { attempts: 0, state: { kind: 'ready' } });
    await w.move(201);
    t.equal(node.got('assign').length, 4, 'after a moment it is asked again');
  },
);

void t.test(
  'direct calls: wait for a slot, hold it as a lease, give it back once; S5',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    const first = w.ask('call', { app: 'acme/cutout', callId: 1 });
    const second = w.ask('call', { app: 'acme/cutout', callId: 2 });
    const timed = w.ask('call', { app: 'acme/cutout', callId: 3, startTimeoutMs: 1000 });
    await w.settle();
    await node.ready();
    t.match(await first, { address: '127.0.0.1:1', lease: '1' });
    await w.move(1001);
    t.match(await timed, { refused: 'START_TIMEOUT' });
    w.shell.apply({ type: 'callEnded', callId: 1 });
    w.shell.apply({ type: 'callEnded', callId: 1 });
    t.match(await second, { lease: '2' });
    t.match(w.query('app', { app: 'acme/cutout' }), { inFlight: 1 });
    w.shell.apply({ type: 'callEnded', callId: 2 });
    t.match(w.query('app', { app: 'acme/cutout' }), { inFlight: 0 });
    t.match(await w.ask('call', { app: 'no/such', callId: 9 }), { refused: 'NOT_FOUND' });
  },
);
