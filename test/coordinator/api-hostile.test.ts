// The HTTP port against those who mean harm, or know no better: raw bytes, strange hosts and pages, drips, floods. Every
// case ends in a 4xx or a closed connection, never in a 5xx of ours, never in silence (H1).
import { connect } from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import { systemClock, type Clock } from '../../shared/clock.ts';
import { limits } from '../../shared/limits.ts';
import { openFakeAgent } from '../fakes/fake-agent.ts';
import { openWorld, until, type World } from './api-world.ts';

let world: World;
t.before(async () => {
  world = await openWorld();
});

/** What the server says until it closes or is quiet for `quietMs`. */
function raw(
  bytes: string | Uint8Array,
  tcpPort = world.tcpPort,
  quietMs = 1_500,
): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(tcpPort, '127.0.0.1');
    let text = '';
    const settle = (): void => {
      timer.cancel();
      socket.destroy();
      resolve(text);
    };
    const timer = systemClock.after(quietMs, () => {
      text ||= 'SILENCE';
      settle();
    });
    socket.on('data', (chunk) => (text += chunk.toString('latin1')));
    socket.on('close', settle);
    socket.on('error', settle);
    socket.write(bytes);
  });
}

const CLOSE = 'connection: close\r\n';
const statusOf = (text: string): number => Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0);

t.test('malformed and ambiguous messages', async (t) => {
  const head = 'POST /queue/acme/echo HTTP/1.1\r\nhost: localhost\r\n';
  const cases: [string, string, number[]][] = [
    ['garbage', '\x16\x03\x01\x00\r\n\r\n', [400]],
    ['no host', 'GET /v1/apps HTTP/1.1\r\n\r\n', [400]],
    [
      'content-length with chunked',
      `${head}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
      [400],
    ],
    ['two lengths', `${head}content-length: 3\r\ncontent-length: 4\r\n\r\nabcd`, [400]],
    ['length of words', `${head}content-length: x\r\n\r\n`, [400]],
    ['negative length', `${head}content-length: -1\r\n\r\n`, [400]],
    ['bad chunk size', `${head}transfer-encoding: chunked\r\n\r\nZZ\r\nx\r\n`, [400]],
    ['huge chunk size', `${head}transfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nx`, [400]],
    ['chunk beyond the limit', `${head}transfer-encoding: chunked, identity\r\n\r\n`, [400]],
    ['header with NUL', `${head}x-a: a\0b\r\n\r\n`, [400]],
    ['header folded', `${head}x-a: a\r\n b\r\n\r\n`, [400]],
    ['space before colon', `${head}x-a : b\r\n\r\n`, [400]],
    ['path with NUL', 'GET /queue/a\0b/c HTTP/1.1\r\nhost: localhost\r\n\r\n', [400]],
    ['headers too large', `${head}x-a: ${'y'.repeat(limits.headerBytes)}\r\n\r\n`, [431]],
    ['too many headers', `${head}${'a: b\r\n'.repeat(600)}${CLOSE}\r\n`, [413]],
    [
      'path too long',
      `GET /run/acme/echo/${'p'.repeat(limits.pathBytes)} HTTP/1.1\r\nhost: localhost\r\n\r\n`,
      [413],
    ],
    ['unknown method', 'BREW /v1/apps HTTP/1.1\r\nhost: localhost\r\n\r\n', [400]],
    ['trace', `TRACE /v1/apps HTTP/1.1\r\nhost: localhost\r\n${CLOSE}\r\n`, [404]],
    ['connect', 'CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n', [0]],
    [
      'climbing path',
      `GET /queue/../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n${CLOSE}\r\n`,
      [404, 405],
    ],
    ['encoded path', `GET /v1/apps/%2e%2e/%00 HTTP/1.1\r\nhost: localhost\r\n${CLOSE}\r\n`, [404]],
    ['bad encoding', `GET /v1/apps/%zz/x HTTP/1.1\r\nhost: localhost\r\n${CLOSE}\r\n`, [400, 404]],
    [
      'proto in the query',
      `GET /v1/requests?__proto__=1&constructor=2&limit=x HTTP/1.1\r\nhost: localhost\r\n${CLOSE}\r\n`,
      [400],
    ],
    [
      'upgrade to an app',
      `GET /run/acme/echo/realtime HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n`,
      [501],
    ],
  ];
  const answers = await Promise.all(cases.map(([, bytes]) => raw(bytes)));
  for (const [at, [what, , expected]] of cases.entries()) {
    const text = answers[at] ?? '';
    t.ok(expected.includes(statusOf(text)) && text !== 'SILENCE', `${what}: ${text.slice(0, 60)}`);
  }
  t.equal(world.port.records.size, 0, 'nothing was queued');
});

t.test('bodies: deep JSON, __proto__, empty, wrong type', async (t) => {
  const post = async (body: string, type = 'application/json') => {
    const headers = { 'content-type': type };
    return (await fetch(`${world.base}/v1/apps`, { method: 'POST', body, headers })).status;
  };
  t.equal(await post('['.repeat(100_000)), 400);
  t.equal(await post('{"a":'.repeat(20_000) + '1' + '}'.repeat(20_000)), 400);
  t.equal(await post('{"__proto__":{"app":"acme/x","image":"x"}}'), 400);
  t.equal(await post('{"app":"acme/x","image":"x","env":{"__proto__":"1"}}'), 201);
  t.equal(({} as Record<string, unknown>)['image'], undefined, 'no prototype was touched');
  t.equal(await post('\ud800'), 400);
  t.equal(await post('', 'text/plain; charset=nothing'), 400);
  const deep = '['.repeat(200_000);
  const queued = await fetch(`${world.base}/queue/acme/echo`, { method: 'POST', body: deep });
  t.equal(queued.status, 200, 'what an app is given is not parsed by us');
});

t.test('random bytes never get a 5xx and never silence', async (t) => {
  const line = fc.oneof(
    fc.constantFrom(
      'host: localhost',
      'content-length: 5',
      'transfer-encoding: chunked',
      'expect: 100-continue',
      'connection: close',
      'x-fal-request-timeout: 1e999',
      'x-fal-queue-priority: low',
      'authorization: Key x',
    ),
    fc
      .tuple(fc.string({ maxLength: 12 }), fc.string({ maxLength: 30 }))
      .map((pair) => pair.join(': ')),
  );
  const message = fc
    .record({
      method: fc.constantFrom('GET', 'POST', 'PUT', 'HEAD', 'OPTIONS', 'X'),
      path: fc.oneof(
        fc.webPath(),
        fc.string({ maxLength: 40 }).map((text) => `/queue/${text}`),
        fc.constantFrom(
          '/v1/apps',
          '/queue/acme/echo/requests/x/cancel',
          '/agent',
          '/agent/results/a1.x',
          '//',
          '*',
          '/v1/requests/%00',
        ),
      ),
      lines: fc.array(line, { maxLength: 8 }),
      body: fc.oneof(
        fc.string({ maxLength: 60 }),
        fc.constant('0\r\n\r\n'),
        fc.constant('5\r\nhello\r\n0\r\n\r\n'),
      ),
    })
    .map(
      ({ method, path, lines, body }) =>
        `${method} ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n${body}\r\n\r\n`,
    );
  await fc.assert(
    fc.asyncProperty(message, async (text) => {
      // A half message is not silence of ours: the peer is to end it, so it ends its side.
      const answer = await new Promise<string>((resolve) => {
        const socket = connect({ port: world.tcpPort, host: '127.0.0.1', allowHalfOpen: true });
        let got = '';
        socket.on('data', (chunk) => (got += chunk.toString('latin1')));
        socket.on('close', () => resolve(got));
        socket.on('end', () => socket.end());
        socket.on('error', () => resolve(got));
        socket.end(Buffer.from(text, 'latin1'));
        const late = systemClock.after(5_000, () => {
          resolve('SILENCE');
          socket.destroy();
        });
        socket.on('close', () => late.cancel());
      });
      return answer !== 'SILENCE' && !/HTTP\/1\.1 5\d\d/.test(answer);
    }),
    { numRuns: 300 },
  );
  t.same(world.errors, []);
});

t.test('development mode: no web page and no strange name gets in', async (t) => {
  const ask = (lines: string, path = '/v1/apps', method = 'GET') =>
    raw(`${method} ${path} HTTP/1.1\r\n${lines}\r\n${CLOSE}\r\n`);
  t.equal(statusOf(await ask('host: localhost:8800')), 200);
  t.equal(statusOf(await ask('host: [::1]:8800')), 200);
  t.equal(statusOf(await ask('host: queue.fal.run', '/')), 404, 'fal’s own names are ours');
  for (const host of [
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '8.8.8.8',
    '',
  ])
    t.equal(statusOf(await ask(`host: ${host}`)), 403, `host ${host}`);
  const origin = (value: string) => ask(`host: localhost\r\norigin: ${value}`);
  for (const value of ['https://evil.example', 'null', 'http://localhost.evil.example', 'file://'])
    t.equal(statusOf(await origin(value)), 403, `origin ${value}`);
  t.match(
    await origin('http://localhost:3000'),
    /access-control-allow-origin: http:\/\/localhost:3000/,
  );
  const upgrade = 'connection: upgrade\r\nupgrade: websocket';
  t.equal(statusOf(await ask(`host: evil.example\r\n${upgrade}`, '/agent')), 403);
  const preflight = await ask(
    'host: localhost\r\norigin: http://localhost:3000\r\naccess-control-request-method: POST\r\naccess-control-request-headers: x-fal-queue-priority',
    '/queue/acme/echo',
    'OPTIONS',
  );
  t.equal(statusOf(preflight), 204);
  t.match(preflight, /access-control-allow-headers: x-fal-queue-priority/);
  t.match(preflight, /access-control-expose-headers: x-fal-request-id/);
  const other = await openWorld({
    allowedHosts: ['box.local'],
    allowedOrigins: ['https://app.example'],
  });
  const allowed = `GET /v1/apps HTTP/1.1\r\nhost: box.local:1\r\norigin: https://app.example\r\n${CLOSE}\r\n`;
  t.equal(statusOf(await raw(allowed, other.tcpPort)), 200);
  await other.close();
});

t.test('with a token: every service but health asks for it', async (t) => {
  const token = 'the shared secret';
  const other = await openWorld({ token });
  const ask = async (path: string, authorization?: string, method = 'GET') =>
    (
      await fetch(`${other.base}${path}`, {
        method,
        headers: authorization === undefined ? {} : { authorization },
        ...(method === 'POST' ? { body: '{}' } : {}),
      })
    ).status;
  for (const path of ['/v1/apps', '/metrics', '/openapi.json', '/run/acme/echo']) {
    t.equal(await ask(path), 401, path);
    t.equal(await ask(path, 'Key wrong'), 401, path);
  }
  t.equal(await ask('/queue/acme/echo', `Basic ${token}`, 'POST'), 401);
  t.equal(await ask('/queue/acme/echo', 'Key the', 'POST'), 401);
  other.port.records.clear();
  const spaced = await openWorld({ token: 'secret-without-space' });
  t.equal(
    (
      await fetch(`${spaced.base}/queue/acme/echo`, {
        method: 'POST',
        body: '{}',
        headers: { authorization: 'Key secret-without-space', host: 'any.example' },
      })
    ).status,
    200,
  );
  t.equal(
    (
      await fetch(`${spaced.base}/v1/apps`, {
        headers: { authorization: 'Bearer secret-without-space' },
      })
    ).status,
    200,
  );
  const page = await fetch(`${spaced.base}/healthz`, {
    headers: { origin: 'https://evil.example' },
  });
  t.equal(page.headers.get('access-control-allow-origin'), null, 'no CORS for strangers');
  await spaced.close();
  for (const path of ['/healthz', '/readyz', '/']) t.equal(await ask(path), 200, path);
  await other.close();
});

t.test('drips and floods', async (t) => {
  // A clock that runs a hundred times faster, so that windows of seconds pass in the test.
  const fast: Clock = {
    ...systemClock,
    after: (delayMs, fire) => systemClock.after(delayMs / 100, fire),
  };
  const other = await openWorld({}, { clock: fast });
  const dripping = connect(other.tcpPort, '127.0.0.1');
  dripping.on('error', () => undefined);
  dripping.write(
    'POST /queue/acme/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nx',
  );
  await new Promise((resolve) => dripping.on('close', resolve));
  t.equal(other.port.records.size, 0, 'a body that drips is cut off');
  const agent = await openFakeAgent((req) => void req.resume());
  other.port.addresses = [agent.address];
  const streaming = connect(other.tcpPort, '127.0.0.1');
  streaming.on('error', () => undefined);
  streaming.write(
    'POST /run/acme/echo/x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n',
  );
  await new Promise((resolve) => streaming.on('close', resolve));
  await until(() => other.port.open.size === 0 && other.port.ended.length === 1, 'the slot');
  await agent.close();
  await other.close();
});

t.test('the end', async (t) => {
  t.same(world.errors, []);
  await world.close();
});
