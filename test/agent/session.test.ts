// The link to the coordinator over real sockets: what opens it, what refuses it, what ends it, and what it survives.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { dial, type LinkEnd } from '../../agent/session/dial.ts';
import { afterEnd, redialPolicy } from '../../agent/session/keep.ts';
import type { HelloState } from '../../agent/session/link.ts';
import { openIdentity } from '../../agent/core/identity.ts';
import { seededChance, systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { encodeFrame } from '../../shared/frame.ts';
import { newNodeId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import { bench, until } from '../fakes/agent-bench.ts';
import { FakeCoordinator, type FakeOptions } from '../fakes/fake-coordinator.ts';

const hello: HelloState = {
  nodeId: newNodeId(Date.now(), systemChance),
  incarnation: 1,
  name: 'test',
  version: '0',
  labels: {},
  resources: { cpu: 1, memoryBytes: 1 },
  host: {},
  gpus: { kind: 'none' },
  drivers: [],
  runners: [],
  attempts: [],
  images: [],
};

/** One dial; `during` runs once the link stands. */
async function once(
  fake: FakeCoordinator,
  token?: string,
  during: () => void = () => undefined,
): Promise<LinkEnd> {
  const server = { hello: () => hello, linked: during, received() {}, unlinked() {} };
  const parts = {
    url: `${fake.url}/agent`,
    token,
    clock: systemClock,
    chance: systemChance,
    server,
  };
  return dial(parts, new AbortController().signal);
}

async function withFake(
  options: FakeOptions,
  use: (fake: FakeCoordinator) => Promise<void>,
): Promise<void> {
  const fake = await FakeCoordinator.start(options);
  await use(fake).finally(() => fake.stop());
}

t.test('refusals that only an operator can mend', async (t) => {
  const secret = 'a shared secret';
  const cases: [string, FakeOptions, string | undefined, string][] = [
    ['newer protocol', { protocol: { min: 2, max: 3 } }, undefined, 'PROTOCOL_UNSUPPORTED'],
    ['wrong token', { token: secret }, 'another secret', 'UNAUTHORIZED'],
    ['no token', { token: secret }, undefined, 'UNAUTHORIZED'],
    ['lying coordinator (L2)', { token: secret, liesAboutToken: true }, secret, 'UNAUTHORIZED'],
    ['coordinator without token (L2)', {}, secret, 'UNAUTHORIZED'],
  ];
  for (const [name, options, token, code] of cases)
    await withFake(options, async (fake) => {
      const end = await once(fake, token, () => t.fail(`${name}: linked`));
      t.match(end, { kind: 'refused', failure: { code } }, name);
      t.notMatch(end.kind === 'refused' ? end.failure.message : '', secret);
    });
  await withFake({ protocol: { min: 2, max: 3 } }, async (fake) => {
    await once(fake);
    t.match((await fake.next('goodbye')).message, 'upgrade the older one');
    t.equal(fake.hellos.length, 0, 'nothing is told before the protocol is agreed on (L1)');
  });
});

t.test('a replaced link is refused, an unreachable coordinator is tried again', async (t) => {
  await withFake({}, async (fake) => {
    const end = await once(fake, undefined, () =>
      fake.send('goodbye', { code: 'LINK_REPLACED', message: 'a newer one' }),
    );
    t.match(end, { kind: 'refused', failure: { code: 'LINK_REPLACED' } });
  });
  const gone = await FakeCoordinator.start();
  await gone.stop();
  const port = 1;
  const url = `ws://127.0.0.1:${port}/agent`;
  const server = { hello: () => hello, linked() {}, received() {}, unlinked() {} };
  const parts = { url, token: undefined, clock: systemClock, chance: systemChance, server };
  t.match(await dial(parts, new AbortController().signal), {
    kind: 'retryable',
    failure: { code: 'UNAVAILABLE' },
  });
});

t.test('a frame that breaks the protocol ends the link, never the agent (L3)', async (t) => {
  const deep = Buffer.concat([Buffer.alloc(200, 0x91), Buffer.from([0xc0])]);
  const frames: [string, Uint8Array | string, string][] = [
    ['text', 'hello', 'FRAME_INVALID'],
    ['not msgpack', Buffer.from([0xc1]), 'FRAME_INVALID'],
    ['nested', deep, 'FRAME_INVALID'],
    ['extension', Buffer.from([0xd4, 0x72, 0x40]), 'FRAME_INVALID'],
    ['wrong field', encodeFrame('ack', { token: 7 }), 'FRAME_INVALID'],
    ['wrong sender', encodeFrame('started', { token: 'x' }), 'FRAME_INVALID'],
    [
      'second welcome',
      encodeFrame('challenge', { nonce: 'x', protocol: { min: 1, max: 1 }, auth: 'none' }),
      'FRAME_INVALID',
    ],
    ['too large', Buffer.alloc(limits.frameBytes + 1), 'FRAME_TOO_LARGE'],
  ];
  for (const [name, bytes, code] of frames)
    await withFake({}, async (fake) => {
      const end = await once(fake, undefined, () => fake.raw(bytes));
      t.match(end, { kind: 'served', failure: { code } }, name);
      if (code === 'FRAME_INVALID') t.equal((await fake.next('goodbye')).code, code, name);
    });
  await withFake({}, async (fake) => {
    const stop = new AbortController();
    const server = {
      hello: () => hello,
      linked() {
        fake.raw(encodeFrame('inventedLater', { x: 1 }));
        setTimeout(() => stop.abort(), 150);
      },
      received: () => t.fail('an unknown message is not served'),
      unlinked() {},
    };
    const parts = {
      url: `${fake.url}/agent`,
      token: undefined,
      clock: systemClock,
      chance: systemChance,
      server,
    };
    t.match(await dial(parts, stop.signal), { kind: 'stopped' }, 'an unknown message is ignored');
  });
});

t.test('mutated frames never crash the agent', async (t) => {
  const random = seededChance(7);
  const good = encodeFrame('startRunner', { runnerId: 'x', env: { a: 'b' } });
  await using b = await bench({ fake: { heartbeatMs: 1_000 } });
  for (let at = 0; at < 50; at += 1) {
    const bad = Uint8Array.from(good);
    for (let flip = 0; flip < 4; flip += 1)
      bad[Math.floor(random.fraction('at') * bad.length)] = Math.floor(random.fraction('to') * 256);
    const before = b.fake.connections;
    b.fake.raw(bad);
    await Promise.race([
      until(() => b.fake.hellos.length > before, 'linked again'),
      new Promise((resolve) => setTimeout(resolve, 20)),
    ]).catch(() => undefined);
  }
  b.fake.drop();
  const { length } = b.fake.hellos;
  await until(() => b.fake.hellos.length > length, 'still there');
  t.equal((await fetch(`${b.agent.url}/healthz`)).status, 200);
});

t.test('silence and one-way breaks end the link (L4)', async (t) => {
  await withFake({ beats: false, heartbeatMs: 30, lostMs: 150 }, async (fake) => {
    const end = await once(fake);
    t.match(end, { kind: 'served', failure: { code: 'LINK_LOST' } });
    t.match(end.kind === 'served' ? end.failure.message : '', 'nothing was heard');
  });
  await withFake({ beats: false, heartbeatMs: 30, lostMs: 150 }, async (fake) => {
    let timer: NodeJS.Timeout | undefined;
    const end = await once(fake, undefined, () => {
      let sequence = 0;
      timer = setInterval(() => fake.send('heartbeat', { sequence: ++sequence, echo: 0 }), 20);
    });
    clearInterval(timer);
    t.match(end.kind === 'served' ? end.failure.message : '', 'did not hear us');
  });
  await withFake({ heartbeatMs: 20, lostMs: 100 }, async (fake) => {
    const stop = new AbortController();
    const server = {
      hello: () => hello,
      linked: () => setTimeout(() => stop.abort(), 300),
      received() {},
      unlinked() {},
    };
    const parts = {
      url: `${fake.url}/agent`,
      token: undefined,
      clock: systemClock,
      chance: systemChance,
      server,
    };
    t.match(await dial(parts, stop.signal), { kind: 'stopped' }, 'with echoes it holds');
  });
});

t.test('when to dial again (E1, E2, E3)', async (t) => {
  const half = { bytes: systemChance.bytes, fraction: () => 0.5 };
  const failure = new Failure('LINK_LOST', 'x');
  const after = (end: LinkEnd, tries: number) => afterEnd(end, tries, redialPolicy, half);
  t.strictSame(after({ kind: 'retryable', failure }, 3), { waitMs: 800, tries: 4 });
  t.strictSame(after({ kind: 'served', heldMs: 60_000, failure }, 3), { waitMs: 100, tries: 1 });
  t.strictSame(after({ kind: 'served', heldMs: 50, failure }, 3), { waitMs: 800, tries: 4 });
  t.ok((after({ kind: 'refused', failure }, 3)?.waitMs ?? 0) >= 30_000);
  t.equal(after({ kind: 'stopped' }, 3), undefined);
});

t.test('a token on both sides links; the hello is the full state', async (t) => {
  const token = 'a shared secret';
  await using b = await bench({
    fake: { token },
    settings: { token, labels: { zone: 'a' }, cpu: 2, memory: '1GiB' },
  });
  const [said] = b.fake.hellos;
  t.match(said, {
    incarnation: 1,
    name: 'test',
    labels: { zone: 'a' },
    resources: { cpu: 2, memoryBytes: 2 ** 30 },
    gpus: { kind: 'none' },
    drivers: [{ name: 'memory' }],
  });
  t.equal(`http://${said?.advertise}`, b.agent.url, 'both on loopback: it can be dialled');
  await b.agent.stop();
  await b.again();
  await until(() => b.fake.hellos.length === 2, 'linked again');
  t.equal(b.fake.hellos[1]?.nodeId, said?.nodeId);
  t.equal(b.fake.hellos[1]?.incarnation, 2);
});

t.test('one agent per data folder', async (t) => {
  await using b = await bench();
  await t.rejects(b.again(), {
    code: 'STORE_LOCKED',
    message: new RegExp(`process ${process.pid}`),
  });
  await b.agent.stop();
  await writeFile(join(b.data, 'node.json'), '{');
  await t.rejects(b.again(), { code: 'STORE_CORRUPT' });
  await rm(join(b.data, 'node.json'));
  await b.again();
});

t.test('identity is kept, and a newer format is refused', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'runmesh-identity-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const first = await openIdentity(folder, systemClock, systemChance);
  const second = await openIdentity(folder, systemClock, systemChance);
  t.strictSame(second, { nodeId: first.nodeId, incarnation: first.incarnation + 1 });
  const text = await readFile(join(folder, 'node.json'), 'utf8');
  await writeFile(join(folder, 'node.json'), text.replace('"format":1', '"format":2'));
  await t.rejects(openIdentity(folder, systemClock, systemChance), { code: 'STORE_TOO_NEW' });
});

t.test('a hung GPU probe delays nothing; what it says later is told', async (t) => {
  let answer = (): void => undefined;
  const probe = {
    read: (signal: AbortSignal) =>
      new Promise<{ kind: 'none' }>((resolve, reject) => {
        answer = () => resolve({ kind: 'none' });
        signal.addEventListener('abort', () => reject(signal.reason));
      }),
    close: () => undefined,
  };
  const fromMs = Date.now();
  await using b = await bench({ parts: { probe }, waits: false });
  t.equal((await fetch(`${b.agent.url}/healthz`)).status, 200);
  while (b.fake.hellos.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  t.ok(Date.now() - fromMs < 4_500, 'the hello did not wait for it');
  t.match(b.fake.hellos[0]?.gpus, { kind: 'no_answer', reason: 'not asked yet' });
  await b.ready();
  answer();
  t.match(await b.fake.next('gpus'), { kind: 'none' });
});
