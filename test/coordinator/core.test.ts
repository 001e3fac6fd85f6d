// The core through its shell, over the in-memory store: each case says which rule it pins.
import t from 'tap';
import { openMemoryStore, MemoryDisk } from '../../coordinator/store/memory-store.ts';
import type { RequestId } from '../../shared/ids.ts';
import { answered, CoreWorld } from '../fakes/core-world.ts';

async function world(disk = new MemoryDisk()): Promise<CoreWorld> {
  const made = new CoreWorld(async () => openMemoryStore(disk));
  await made.shell.start();
  return made;
}

void t.test(
  'from zero: submit starts a runner, its first IDLE gets the request, the result ends it',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    const app = await w.deploy();
    const id = await w.submit(app);
    await w.settle();
    t.equal(node.got('startRunner').length, 1, 'one runner for one request');
    t.match(w.query('position', await place(w, id)).waiting, { code: 'placing' });
    const [runner] = node.got('startRunner');
    if (!runner) throw new Error('no runner');
    await node.report(runner.runnerId, 'DOCKER_PULL', {
      progress: { what: 'layer 1 of 2', doneBytes: 5e6, totalBytes: 2e7 },
    });
    t.match(w.query('position', await place(w, id)).waiting, {
      code: 'pulling',
      text: /layer 1 of 2, 5\.0 of 20 MB/,
    });
    await node.report(runner.runnerId, 'SETUP');
    await node.report(runner.runnerId, 'IDLE');
    const [assign] = node.got('assign');
    t.match(assign, { requestId: id, number: 1, runnerId: runner.runnerId, timeoutMs: 3_600_000 });
    t.match(w.query('runners', {})[0], { state: 'RUNNING', inFlight: 1, requests: [id] });
    await node.started(assign?.token ?? '');
    t.match(await w.record(id), { attempts: 1, state: { kind: 'flight' } });
    await node.finish(assign?.token ?? '');
    t.match(await w.record(id), { state: { kind: 'done', end: { status: 200 } }, attempts: 1 });
    t.equal(node.got('ack').length, 1);
    t.match(w.query('runners', {})[0], { state: 'IDLE', inFlight: 0 });
    t.same(
      w.query('runners', {})[0]?.states.map((one) => one.state),
      ['PENDING', 'DOCKER_PULL', 'SETUP', 'IDLE', 'RUNNING', 'IDLE'],
    );
    await w.move(59_000);
    t.equal(node.got('stopRunner').length, 0, 'keep_alive not over');
    await w.move(2_000);
    t.match(
      node.got('stopRunner'),
      [{ runnerId: runner.runnerId, how: 'stop' }],
      'keep_alive over',
    );
    await node.report(runner.runnerId, 'TERMINATED');
    t.equal(w.query('runners', {}).length, 0);
    t.match(w.query('runners', { ended: true }), [{ state: 'TERMINATED', reason: 'keep_alive' }]);
  },
);

void t.test(
  'Q4: first in, first out, low behind all normal, a retry keeps its place',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    const low = await w.submit('acme/cutout', { priority: 1 });
    const first = await w.submit();
    const second = await w.submit();
    await node.ready();
    const order: RequestId[] = [];
    for (let turn = 0; turn < 3; turn += 1) {
      const assign = node.got('assign').at(-1);
      if (!assign) throw new Error('nothing assigned');
      order.push(assign.requestId);
      await node.finish(assign.token);
    }
    t.same(order, [first, second, low]);
  },
);

void t.test(
  'Q3: a late success of an older attempt completes an open request once; a late failure changes nothing',
  async (t) => {
    const w = await world();
    const a = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    const id = await w.submit();
    await a.ready();
    const old = a.got('assign')[0];
    await a.started(old?.token ?? '');
    await a.drop();
    await w.move(10_001);
    t.match((await w.record(id)).state, { kind: 'ready' }, 'the lost node requeues');
    t.equal((await w.record(id)).attempts, 0, 'uncharged (Q5)');
    const b = await w.agent('b');
    await w.move(1);
    await b.ready();
    const newer = b.got('assign')[0];
    t.match(newer, { requestId: id, number: 2 });
    await a.hello({ attempts: [{ token: old?.token ?? '', phase: 'running' }] });
    await a.finish(old?.token ?? '', { kind: 'failed', code: 'RUNNER_DISCONNECTED', message: 'x' });
    t.match(
      (await w.record(id)).state,
      { kind: 'flight', flight: { number: 2 } },
      'late failure ignored',
    );
    await a.finish(old?.token ?? '', answered(200));
    t.match(
      (await w.record(id)).state,
      { kind: 'done', end: { status: 200 } },
      'late success accepted',
    );
    t.match(b.got('revoke'), [{ token: newer?.token }], 'the newer attempt is revoked');
    await b.finish(newer?.token ?? '', answered(500));
    t.match((await w.record(id)).state, { end: { status: 200 } }, 'one terminal (Q2)');
    t.match(w.query('app', { app: 'acme/cutout' }), { inFlight: 0 });
  },
);

void t.test(
  'retries: 503 stops the runner and runs again later; ten attempts in all',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1, keep_alive: 3000 } });
    const id = await w.submit();
    let attempts = 0;
    for (let guard = 0; guard < 40 && (await w.record(id)).state.kind !== 'done'; guard += 1) {
      await node.ready();
      const assign = node.got('assign').at(-1);
      if (assign && (await w.record(id)).state.kind === 'flight') {
        await node.started(assign.token);
        await node.finish(assign.token, answered(503));
        attempts += 1;
        await node.report(assign.runnerId, 'TERMINATED');
      }
      await w.move(61_000);
    }
    t.equal(attempts, 10);
    t.match(await w.record(id), { attempts: 10, state: { kind: 'done', end: { status: 503 } } });
  },
);

void t.test(
  'no-retry, 500 and 4xx end at once; skip_retry_conditions and x-fal-needs-retry are honoured',
  async (t) => {
    const cases: [Parameters<typeof answered>, object, boolean][] = [
      [[500], {}, true],
      [[422], {}, true],
      [[503], { noRetry: true }, true],
      [[503, [['X-Fal-Needs-Retry', '0']]], {}, true],
      [[503], {}, false],
      [[504], {}, false],
    ];
    for (const [outcome, fields, ends] of cases) {
      const w = await world();
      const node = await w.agent('a');
      await w.deploy();
      const id = await w.submit('acme/cutout', fields);
      await node.ready();
      await node.finish(node.got('assign')[0]?.token ?? '', answered(...outcome));
      t.equal((await w.record(id)).state.kind === 'done', ends, JSON.stringify([outcome, fields]));
    }
  },
);

void t.test(
  'cancel: queued ends with 499 and never runs; running is told; done is too late',
  async (t) => {
    const w = await world();
    const node = await w.agent('a');
    const app = await w.deploy({ scaling: { max_concurrency: 1 } });
    const running = await w.submit();
    const queued = await w.submit();
    await node.ready();
    t.equal(await w.ask('cancel', { app, requestId: queued }), 'requested');
    t.match((await w.record(queued)).state, {
      end: { status: 499, failure: { code: 'CLIENT_CANCELLED' } },
    });
    t.equal(await w.ask('cancel', { app, requestId: running }), 'requested');
    const token = node.got('assign')[0]?.token ?? '';
    t.match(node.got('cancel'), [{ token }]);
    await node.finish(token, answered(499));
    t.match((await w.record(running)).state, { end: { status: 499 } });
    t.equal(await w.ask('cancel', { app, requestId: running }), 'already_completed');
    t.equal(await w.ask('cancel', { app: 'acme/other', requestId: running }), 'not_found');
    t.equal(node.got('assign').length, 1, 'the cancelled one was never assigned');
  },
);

void t.test(
  'Q6: the start timeout runs across attempts and restarts, and not while it runs',
  async (t) => {
    const disk = new MemoryDisk();
    const w = await world(disk);
    await w.deploy();
    const id = await w.submit('acme/cutout', { startTimeoutMs: 5_000 });
    await w.move(3_000);
    await w.shell.stop();
    const again = new CoreWorld(async () => openMemoryStore(disk));
    again.clock.jumpWall(3_000);
    await again.shell.start();
    await again.move(1_000);
    t.match((await again.record(id)).state, { kind: 'ready' });
    await again.move(1_001);
    t.match((await again.record(id)).state, {
      end: { status: 504, failure: { code: 'START_TIMEOUT' } },
    });

    const node = await again.agent('a');
    await again.move(10_000);
    const runs = await again.submit('acme/cutout', { startTimeoutMs: 5_000 });
    await node.ready();
    const token = node.got('assign').at(-1)?.token ?? '';
    await node.started(token);
    await again.move(60_000);
    t.match((await again.record(runs)).state, { kind: 'flight' }, 'not enforced while it runs');
  },
);

void t.test(
  'a restart loses nothing: queued, in flight and finished requests are as they were',
  async (t) => {
    const disk = new MemoryDisk();
    const w = await world(disk);
    const node = await w.agent('a');
    await w.deploy({ scaling: { max_concurrency: 1 } });
    const inFlight = await w.submit();
    const queued = await w.submit();
    await node.ready();
    const token = node.got('assign')[0]?.token ?? '';
    await node.started(token);
    await w.shell.stop();

    const again = new CoreWorld(async () => openMemoryStore(disk));
    again.clock.jumpWall(10);
    await again.shell.start();
    t.equal(again.core.state.epoch, 2, 'the epoch rises');
    node.world.sent.length = 0;
    const back = Object.assign(node, { world: again });
    await again.move(1_000);
    t.match((await again.record(inFlight)).state, { kind: 'flight' }, 'grace: nothing is requeued');
    await back.hello({ attempts: [{ token, phase: 'finished' }] });
    await back.finish(token);
    t.match((await again.record(inFlight)).state, { kind: 'done' });
    t.match(
      back.got('assign'),
      [{ requestId: queued, number: 1 }],
      'the runner was re-adopted and goes on',
    );
  },
);

void t.test('what a stopping agent breaks off runs on another node, uncharged', async (t) => {
  const w = await world();
  const first = await w.agent('a');
  await w.deploy({ scaling: { max_concurrency: 1 } });
  const id = await w.submit();
  await w.settle();
  await first.ready();
  const assigned = first.got('assign')[0];
  if (!assigned) return void t.fail('no assign');
  const { token, runnerId } = assigned;
  await first.started(token);
  t.equal((await w.record(id)).attempts, 1);
  const second = await w.agent('b');
  const outcome = { kind: 'failed', code: 'NODE_DRAINING', message: 'the agent stops' } as const;
  await first.finish(token, outcome);
  t.match((await w.record(id)).attempts, 0);
  t.equal(first.got('assign').length, 1, 'not sent back to it');
  t.ok(first.got('ack').some((ack) => ack.token === token));
  await first.report(runnerId, 'TERMINATED');
  await w.settle();
  await second.ready();
  const again = second.got('assign')[0]?.token ?? '';
  await second.started(again);
  await second.finish(again);
  t.match(await w.record(id), { attempts: 1, state: { kind: 'done', end: { status: 200 } } });
});

void t.test('max queue length refuses before anything is written', async (t) => {
  const w = await world();
  await w.deploy();
  await w.submit();
  await w.submit();
  await t.rejects(w.submit('acme/cutout', { maxQueueLength: 1 }), { message: 'QUEUE_FULL' });
  t.equal(w.query('app', { app: 'acme/cutout' })?.queued, 2);
});

void t.test('a long queue: memory holds a window, nothing is lost or out of order', async (t) => {
  const disk = new MemoryDisk();
  const w = await world(disk);
  await w.deploy({ scaling: { max_concurrency: 1, max_multiplexing: 50 } });
  const ids: RequestId[] = [];
  for (let count = 0; count < 1_500; count += 1) ids.push(await w.submit());
  await w.shell.stop();
  const again = new CoreWorld(async () => openMemoryStore(disk));
  await again.shell.start();
  const node = await again.agent('a');
  t.equal(again.query('app', { app: 'acme/cutout' })?.queued, 1_500);
  await again.move(20_000);
  await node.ready();
  const order: RequestId[] = [];
  for (let at = 0; at < ids.length; at += 1) {
    const assign = node.got('assign')[at];
    if (!assign) throw new Error(`nothing assigned at ${at}`);
    order.push(assign.requestId);
    node.world.shell.apply({
      type: 'finished',
      linkId: node.linkId,
      nodeId: node.nodeId,
      attempt: { partition: 0, epoch: 2, requestId: assign.requestId, number: 1, nonce: '' },
      token: assign.token,
      outcome: answered(200),
      durationMs: 1,
    });
    if (at % 10 === 9) await again.settle();
  }
  t.same(order, ids);
});

async function place(w: CoreWorld, id: RequestId) {
  const { app, priority, sequence } = await w.record(id);
  return { app, priority, sequence, requestId: id };
}
