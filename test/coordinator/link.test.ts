// Agent links over real sockets: handshake, refusals, silence, replacement, slow and hostile peers.
import { createServer, type Server } from 'node:http';
import t from 'tap';
import { WebSocket } from 'ws';
import { openLinkServer, type LinkServer } from '../../coordinator/link/link-server.ts';
import type { LinkTiming } from '../../coordinator/link/link-session.ts';
import { Silence } from '../../coordinator/link/silence.ts';
import type { Event } from '../../coordinator/core/event.ts';
import { systemChance } from '../../shared/chance.ts';
import { sleep, systemClock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { decodeFrame, encodeFrame } from '../../shared/frame.ts';
import { newNodeId, newRequestId, newRunnerId } from '../../shared/ids.ts';
import { silentLog } from '../../shared/log.ts';
import { attemptToken, linkProof, type Attempt } from '../../shared/token.ts';
import { until } from './api-world.ts';

const now = systemClock.now();
const nodeId = newNodeId(now, systemChance);
const runnerId = newRunnerId(now, systemChance);
const tokenKey = systemChance.bytes(32, 'token key');
const TOKEN = 'a shared secret of agents';

interface Place {
  links: LinkServer;
  events: Event[];
  url: string;
  server: Server;
  ready: { yes: true } | { yes: false; no: string };
  close(): Promise<void>;
}

async function openPlace(token?: string, timing: Partial<LinkTiming> = {}): Promise<Place> {
  const events: Event[] = [];
  let linkId = 0;
  const links = openLinkServer({
    port: {
      tokenKey,
      apply(event) {
        events.push(event);
        // The core's part: a hello is answered by a welcome.
        if (event.type === 'linkUp') links.welcome(event.linkId, { revoke: [], stop: [] });
      },
      newLinkId: () => (linkId += 1),
      ready: () => place.ready,
    },
    token,
    timing: { heartbeatMs: 2_000, suspectMs: 5_000, lostMs: 10_000, ...timing },
    clock: systemClock,
    chance: systemChance,
    log: silentLog,
    dialMs: 300,
    redialMs: 30,
    readLogMs: 200,
  });
  const server = createServer((_req, res) => void res.end('{}'));
  server.on('upgrade', (req, socket, head) => links.upgrade(req, socket, head));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no address');
  const place: Place = {
    links,
    events,
    server,
    url: `ws://127.0.0.1:${address.port}/agent`,
    ready: { yes: true },
    close: () =>
      new Promise((resolve) => {
        links.closeAll(new Failure('SHUTTING_DOWN', 'the test ends'));
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return place;
}

type Fields = Record<string, unknown>;

/** A peer that says what it is told to. */
class Peer {
  readonly socket: WebSocket;
  readonly heard: { name: string; body: Fields }[] = [];
  readonly closed: Promise<number>;

  constructor(url: string) {
    this.socket = new WebSocket(url);
    this.socket.on('message', (data) => {
      const [name, body] = decodeFrame(data as Buffer);
      this.heard.push({ name, body: body as Fields });
    });
    this.socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => this.socket.on('close', (code) => resolve(code)));
  }

  async hear(name: string): Promise<Fields> {
    await until(() => this.heard.some((each) => each.name === name), name);
    return this.heard.find((each) => each.name === name)?.body ?? {};
  }

  send(name: string, body: unknown): void {
    this.socket.send(encodeFrame(name, body));
  }

  async hello(more: Fields = {}, secret?: string): Promise<Fields> {
    const { nonce } = await this.hear('challenge');
    const agentNonce = 'n'.repeat(32);
    const about = { coordinatorNonce: String(nonce), agentNonce, nodeId };
    this.send('hello', {
      protocol: { min: 1, max: 1 },
      nodeId,
      incarnation: 1,
      name: 'test',
      version: '0',
      nonce: agentNonce,
      ...(secret === undefined ? {} : { proof: linkProof(secret, 'agent', about) }),
      labels: {},
      resources: { cpu: 1, memoryBytes: 1 },
      host: {},
      gpus: { kind: 'none' },
      drivers: [],
      runners: [],
      attempts: [],
      images: [],
      ...more,
    });
    return about;
  }
}

async function linked(place: Place, more: Fields = {}, secret?: string): Promise<Peer> {
  const peer = new Peer(place.url);
  await peer.hello(more, secret);
  await peer.hear('welcome');
  return peer;
}

const typesOf = (place: Place): string[] => place.events.map((event) => event.type);

t.test('handshake without a token: welcome, events, end', async (t) => {
  const place = await openPlace();
  const peer = await linked(place);
  t.match(await peer.hear('challenge'), { auth: 'none', protocol: { min: 1, max: 1 } });
  const welcome = await peer.hear('welcome');
  t.match(welcome, { protocol: 1, heartbeatMs: 2000, lostMs: 10000, revoke: [], stop: [] });
  t.same(place.links.leaseKeyOf(1), welcome['leaseKey'], 'the lease key is shared');
  t.equal(place.links.linkOf(nodeId), 1);
  await peer.hear('heartbeat');
  peer.send('gpus', { kind: 'none' });
  peer.send('a message of the future', { x: 1 });
  peer.send('images', { added: [], removed: [], unknownField: 1 });
  await until(() => place.events.length === 3, 'the events');
  peer.socket.close();
  await until(() => typesOf(place).includes('linkDown'), 'the end');
  t.same(typesOf(place), ['linkUp', 'gpus', 'images', 'linkDown']);
  t.equal(place.links.linkOf(nodeId), undefined);
  place.links.send(1, { name: 'ack', body: { token: 'x' } });
  await place.close();
});

t.test('handshake with a token: both sides prove it', async (t) => {
  const place = await openPlace(TOKEN);
  const peer = new Peer(place.url);
  const about = await peer.hello({}, TOKEN);
  const welcome = await peer.hear('welcome');
  t.equal(welcome['proof'], linkProof(TOKEN, 'coordinator', about as never));
  for (const secret of ['wrong', undefined]) {
    const stranger = new Peer(place.url);
    await stranger.hello({ incarnation: 9 }, secret);
    t.match(await stranger.hear('goodbye'), { code: 'UNAUTHORIZED' });
    t.equal(await stranger.closed, 4401);
  }
  t.same(typesOf(place), ['linkUp'], 'a stranger replaces nobody');
  await place.close();
});

t.test('a version that is not spoken is told with both ranges', async (t) => {
  const place = await openPlace();
  const peer = new Peer(place.url);
  await peer.hear('challenge');
  peer.send('hello', { protocol: { min: 7, max: 9 }, of: 'another shape' });
  const { code, message } = await peer.hear('goodbye');
  t.equal(code, 'PROTOCOL_UNSUPPORTED');
  t.match(message, /1\.\.1.*7\.\.9/);
  t.equal(await peer.closed, 4406);
  t.same(place.events, []);
  await place.close();
});

t.test('what breaks the rules ends the link, never the coordinator', async (t) => {
  const place = await openPlace();
  const cases: [string, (peer: Peer) => void, number, string | undefined][] = [
    ['text', (peer) => peer.socket.send('hello'), 1007, 'FRAME_INVALID'],
    ['garbage', (peer) => peer.socket.send(Buffer.from([0xc1, 0xff])), 1007, 'FRAME_INVALID'],
    ['truncated', (peer) => peer.socket.send(Buffer.from([0x92, 0xa1])), 1007, 'FRAME_INVALID'],
    [
      'extension',
      (peer) => peer.socket.send(Buffer.from([0xd4, 0x72, 0x40])),
      1007,
      'FRAME_INVALID',
    ],
    ['too large', (peer) => peer.socket.send(Buffer.alloc(2 ** 20 + 1)), 1009, undefined],
    ['not hello', (peer) => peer.send('gpus', { kind: 'none' }), 1007, 'FRAME_INVALID'],
    ['not an agent’s', (peer) => peer.send('challenge', {}), 1007, 'FRAME_INVALID'],
    [
      'no shape',
      (peer) => peer.send('hello', { protocol: { min: 1, max: 1 } }),
      1007,
      'FRAME_INVALID',
    ],
    [
      'fragments',
      (peer) => {
        for (let at = 0; at < 200; at += 1) peer.socket.send(Buffer.from([1]), { fin: false });
      },
      1008,
      undefined,
    ],
  ];
  for (const [what, break_, closeCode, code] of cases) {
    const peer = new Peer(place.url);
    await peer.hear('challenge');
    break_(peer);
    const got = await peer.closed;
    t.ok(
      got === closeCode || (closeCode === 1008 && got >= 1002 && got <= 1009),
      `${what}: ${got}`,
    );
    t.equal(peer.heard.find((each) => each.name === 'goodbye')?.body['code'], code, what);
  }
  t.same(place.events, [], 'nothing reached the core');
  const peer = await linked(place);
  peer.send('runner', { runnerId: '../../etc', state: 'IDLE' });
  t.match(await peer.hear('goodbye'), { code: 'FRAME_INVALID', message: /^runner\.runnerId/ });
  await peer.closed;
  t.same(typesOf(place), ['linkUp', 'linkDown']);
  await place.close();
});

t.test('not ready: agents are told to come again', async (t) => {
  const place = await openPlace();
  place.ready = { yes: false, no: 'the store is being opened' };
  const peer = new Peer(place.url);
  t.equal(await peer.closed, 1006, 'refused before the upgrade');
  t.same(place.events, []);
  await place.close();
});

t.test('the same node twice: the newer link or the higher incarnation wins', async (t) => {
  const place = await openPlace();
  const first = await linked(place);
  const second = await linked(place);
  t.match(await first.hear('goodbye'), { code: 'LINK_REPLACED' });
  t.equal(await first.closed, 4409);
  const third = await linked(place, { incarnation: 5 });
  t.match(await second.hear('goodbye'), { code: 'LINK_REPLACED' });
  const old = new Peer(place.url);
  await old.hello({ incarnation: 4 });
  t.match(await old.hear('goodbye'), { code: 'LINK_REPLACED', message: /copy/ });
  await old.closed;
  t.equal(third.socket.readyState, WebSocket.OPEN);
  t.same(typesOf(place), ['linkUp', 'linkUp', 'linkUp'], 'a replaced link is not down (L2)');
  await place.close();
});

t.test('attempts: only genuine tokens become events, others are revoked', async (t) => {
  const place = await openPlace();
  const attempt: Attempt = {
    partition: 1,
    epoch: 3,
    requestId: newRequestId(now, 1, systemChance),
    number: 2,
    nonce: '0123456789abcdef',
  };
  const token = attemptToken(tokenKey, attempt);
  const forged = attemptToken(systemChance.bytes(32, 'other key'), attempt);
  const phase = 'running';
  const peer = await linked(place, {
    attempts: [
      { token, phase },
      { token: forged, phase },
    ],
  });
  t.match(place.events[0], { type: 'linkUp', attempts: [{ attempt, token }] });
  t.same((await peer.hear('welcome'))['revoke'], [forged]);
  peer.send('started', { token: forged });
  peer.send('started', { token });
  peer.send('refused', { token, failure: { code: 'SLOTS_FULL', message: 'm' } });
  peer.send('finished', {
    token,
    durationMs: 5,
    outcome: { kind: 'failed', code: 'A_CODE_OF_THE_FUTURE', message: 'm' },
  });
  await until(() => place.events.length === 4, 'the events');
  t.match(place.events.slice(1), [
    { type: 'started', attempt, token, nodeId },
    { type: 'refused', attempt, failure: { code: 'SLOTS_FULL' } },
    { type: 'finished', attempt, durationMs: 5, outcome: { kind: 'failed', code: 'INTERNAL' } },
  ]);
  t.same(await peer.hear('revoke'), { token: forged });
  await place.close();
});

t.test(
  'silence: suspect, heard again, lost; an echo that stands still counts as silence',
  async (t) => {
    const place = await openPlace(undefined, { heartbeatMs: 50, suspectMs: 200, lostMs: 700 });
    const peer = await linked(place);
    await until(() => typesOf(place).includes('linkSilent'), 'silence');
    peer.send('gpus', { kind: 'none' });
    await until(() => typesOf(place).includes('linkHeard'), 'life');
    await until(() => typesOf(place).includes('linkDown'), 'the end');
    t.match(await peer.hear('goodbye'), { code: 'LINK_LOST' });
    const deaf = await linked(place);
    let sequence = 0;
    const beats = (async () => {
      while (deaf.socket.readyState === WebSocket.OPEN) {
        deaf.send('heartbeat', { sequence: (sequence += 1), echo: 0 });
        await sleep(systemClock, 30);
      }
    })();
    t.equal(await deaf.closed, 4408, 'it speaks but does not hear');
    await beats;
    const well = await linked(place);
    const seen = place.events.length;
    const end = systemClock.elapsed() + 1_000;
    while (systemClock.elapsed() < end) {
      const last = well.heard.findLast((each) => each.name === 'heartbeat')?.body['sequence'] ?? 0;
      well.send('heartbeat', { sequence: 1, echo: last });
      await sleep(systemClock, 30);
    }
    t.equal(place.events.length, seen, 'one that echoes stays');
    // Our own event loop stands still for longer than lostMs, while the peer's bytes wait in the kernel.
    const echo = well.heard.findLast((each) => each.name === 'heartbeat')?.body['sequence'] ?? 0;
    well.send('heartbeat', { sequence: 2, echo });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 900);
    await sleep(systemClock, 60);
    t.equal(well.socket.readyState, WebSocket.OPEN, 'a late timer of ours is no silence (L4)');
    await place.close();
  },
);

t.test('silence, pure', async (t) => {
  const silence = new Silence({ suspectMs: 5_000, lostMs: 10_000 }, 0);
  t.equal(silence.judge(4_999, 0), 'heard');
  t.equal(silence.judge(5_000, 0), 'suspect');
  t.equal(silence.judge(9_000, 1), 'heard', 'bytes of an unfinished frame count');
  t.equal(silence.judge(19_000, 1), 'lost');
  silence.beat(20_000);
  silence.heardBeat(20_100, 1);
  t.equal(silence.judge(20_100, 1), 'heard');
  const second = silence.beat(21_000);
  silence.heardBeat(26_000, second - 1);
  t.equal(silence.judge(26_000, 1), 'suspect', 'our beat of 5 s ago is not echoed');
  silence.heardBeat(26_500, second);
  t.equal(silence.judge(26_500, 1), 'heard');
});

t.test('dial check: told once, again when it changes', async (t) => {
  const place = await openPlace();
  await linked(place, { advertise: '127.0.0.1:1' });
  await until(() => typesOf(place).includes('nodeDialled'), 'the dial');
  t.match(place.events.at(-1), { reachable: false, reason: /ECONNREFUSED/ });
  await sleep(systemClock, 120);
  t.equal(typesOf(place).filter((type) => type === 'nodeDialled').length, 1);
  await linked(place, { advertise: new URL(place.url).host });
  await until(
    () => typesOf(place).filter((type) => type === 'nodeDialled').length === 2,
    'the dial',
  );
  t.match(place.events.at(-1), { reachable: true, linkId: 2 });
  await place.close();
});

t.test('log reads: answered, gone, unanswered, link lost, aborted', async (t) => {
  const place = await openPlace();
  const peer = await linked(place);
  const answering = (body: Fields): void => {
    peer.socket.once('message', (data) => {
      const [name, asked] = decodeFrame(data as Buffer);
      if (name === 'readLog') peer.send('log', { ...(asked as Fields), ...body });
    });
  };
  const bytes = Buffer.from('line\n');
  answering({ bytes, end: 9, gone: false, ended: true });
  t.match(await place.links.readLog(1, runnerId, 4, 1000), {
    offset: 4,
    end: 9,
    ended: true,
    bytes,
  });
  answering({ bytes, end: 0, gone: true, ended: true });
  await t.rejects(place.links.readLog(1, runnerId, 0, 10), { code: 'RUNNER_GONE' });
  await t.rejects(place.links.readLog(1, runnerId, 0, 10), { code: 'LINK_LOST' });
  await t.rejects(place.links.readLog(99, runnerId, 0, 10), { code: 'LINK_LOST' });
  const controller = new AbortController();
  const aborted = place.links.readLog(1, runnerId, 0, 10, controller.signal);
  controller.abort(new Error('enough'));
  await t.rejects(aborted, { message: 'enough' });
  const cut = place.links.readLog(1, runnerId, 0, 10);
  peer.socket.terminate();
  await t.rejects(cut, { code: 'LINK_LOST' });
  peer.send('log', { readId: '1', offset: 0, bytes, end: 0, gone: false, ended: false });
  await place.close();
});

t.test('a peer that does not read loses its link, not our memory', async (t) => {
  const place = await openPlace();
  const peer = await linked(place);
  peer.socket.pause();
  const message = {
    name: 'assign',
    body: {
      token: 't',
      requestId: newRequestId(now, 1, systemChance),
      number: 1,
      runnerId,
      method: 'POST',
      path: '/',
      headers: Array.from({ length: 50 }, () => ['x-long', 'y'.repeat(16_000)] as [string, string]),
      input: { kind: 'inline', bytes: new Uint8Array() },
      timeoutMs: 1,
    },
  } as const;
  let sent = 0;
  for (; !typesOf(place).includes('linkDown') && sent < 100; sent += 1)
    place.links.send(1, message);
  t.ok(sent < 100, `dropped after ${sent} messages of 0.8 MB`);
  await place.close();
});
