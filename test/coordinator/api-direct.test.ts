// Direct calls through the coordinator to an agent's data path over real sockets: streaming, refusals, ends (D1–D3).
import { connect } from 'node:net';
import t from 'tap';
import { openFakeAgent, type FakeAgent } from '../fakes/fake-agent.ts';
import { openWorld, until, type World } from './api-world.ts';

let world: World;
let agent: FakeAgent;
const hanging = new Set<string>();

t.before(async () => {
  world = await openWorld();
  agent = await openFakeAgent((req, res, path) => {
    const [, kind, detail] = path.split(/[/?]/);
    if (kind === 'echo') {
      res.writeHead(200, { 'content-type': req.headers['content-type'] ?? 'text/plain' });
      return void req.pipe(res);
    }
    if (kind === 'status') return void res.writeHead(Number(detail), { 'x-app': 'a' }).end('body');
    if (kind === 'stream') {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: {"n":1}\n\n');
      return void setImmediate(() => res.end('data: {"n":2}\n\n'));
    }
    if (kind === 'refuse')
      return void res.writeHead(503, { 'x-runmesh-refused': detail ?? 'SLOTS_FULL' }).end('no');
    if (kind === 'fail')
      return void res.writeHead(504, { 'x-runmesh-failure': detail ?? 'REQUEST_TIMEOUT' }).end();
    if (kind === 'headers')
      return void res.writeHead(200, { 'x-long': 'y'.repeat(20_000) }).end('body');
    if (kind === 'break') {
      res.writeHead(200, { 'content-length': '100' });
      res.write('half');
      return void setImmediate(() => res.destroy());
    }
    if (kind === 'die') return void req.socket.destroy();
    if (kind === 'hints')
      return void res
        .writeHead(Number(detail), {
          'x-fal-runner-hints': 'a,b',
          'x-fal-needs-retry': '1',
          'x-fal-stop-runner': '1',
          'set-cookie': ['a=1', 'b=2'],
        })
        .end('{}');
    hanging.add(path);
    res.on('close', () => hanging.delete(path));
  });
});

const give = (count = 1): void => {
  world.port.addresses = Array.from({ length: count }, () => agent.address);
};
const run = (path: string, init: RequestInit = {}) =>
  fetch(`${world.base}/run/acme/echo${path}`, init);

t.test('fal client: run and stream', async (t) => {
  give();
  const { data, requestId } = await world.fal.run('acme/echo/echo', { input: { a: 1 } });
  t.same(data, { a: 1 });
  t.match(requestId, /^[0-9a-f-]{36}$/);
  give();
  const stream = await world.fal.stream('acme/echo', { input: {} });
  const events: unknown[] = [];
  for await (const event of stream) events.push(event);
  t.same(events, [{ n: 1 }, { n: 2 }]);
});

t.test('any method, path and query; headers of both sides', async (t) => {
  give();
  const answer = await run('/status/207?x=%2F&y', {
    method: 'DELETE',
    headers: { authorization: 'Key s', 'x-fal-no-retry': '1', 'x-custom': 'kept', te: 'trailers' },
  });
  t.equal(answer.status, 207);
  t.equal(await answer.text(), 'body');
  t.equal(answer.headers.get('x-fal-served-from'), world.port.runnerId);
  const seen = agent.seen.at(-1);
  t.match(seen, { method: 'DELETE', path: '/status/207?x=%2F&y' });
  t.match(seen?.headers, {
    'x-custom': 'kept',
    'x-fal-endpoint': 'acme/echo/status/207',
    'x-fal-request-id': answer.headers.get('x-fal-request-id'),
    'x-runmesh-timeout-ms': '60000',
  });
  for (const name of ['authorization', 'x-fal-no-retry', 'te'])
    t.notOk(seen?.headers[name], `${name} is not handed on`);
  for (const status of [200, 503]) {
    give();
    const { headers } = await run(`/hints/${status}`);
    t.equal(headers.get('x-fal-runner-hints'), 'a,b');
    t.equal(headers.get('x-fal-stop-runner'), null);
    t.equal(headers.get('x-fal-needs-retry'), status === 503 ? '1' : null);
    t.same(headers.getSetCookie(), ['a=1', 'b=2'], 'repeated headers stay repeated');
  }
  give();
  t.equal((await run('/status/204', { method: 'HEAD' })).status, 204);
});

t.test('bodies stream both ways: large, chunked, slow', async (t) => {
  give();
  const large = Buffer.alloc(3_000_000, 'z');
  const answer = await run('/echo', { method: 'POST', body: large });
  t.equal(Buffer.compare(Buffer.from(await answer.arrayBuffer()), large), 0);
  give();
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < 50; at += 1) {
      yield Buffer.alloc(1000, at);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const request = { method: 'POST', body: chunks(), duplex: 'half' } as RequestInit;
  t.equal((await (await run('/echo', request)).arrayBuffer()).byteLength, 50_000);
});

t.test('a call waits for a slot, keeps its start timeout, and gives up its place', async (t) => {
  const waiting = run('/status/200');
  await until(() => waitingCalls() === 1, 'the wait');
  world.port.grantWaiting(agent.address);
  t.equal((await waiting).status, 200);
  const late = await run('/status/200', { headers: { 'x-fal-request-timeout': '0.15' } });
  t.equal(late.status, 504);
  t.equal(late.headers.get('x-fal-request-timeout-type'), 'user');
  t.match(await late.json(), { error_type: 'request_timeout' });
  const before = world.port.ended.length;
  const controller = new AbortController();
  const gone = run('/status/200', { signal: controller.signal }).catch(() => 'gone');
  await until(() => waitingCalls() === 1, 'the wait');
  controller.abort();
  t.equal(await gone, 'gone');
  await until(() => world.port.ended.length === before + 1, 'its end');
});

t.test('an agent that refuses: another runner is asked, not for ever', async (t) => {
  const other = await openFakeAgent((_req, res) => void res.end('other'));
  const ended = world.port.ended.length;
  world.port.addresses = [agent.address, other.address];
  const answer = await run('/refuse/SLOTS_FULL', { method: 'POST', body: '{"small":1}' });
  t.equal(await answer.text(), 'other');
  t.same(
    world.port.ended.slice(ended).map((each) => each.refused),
    [true, false],
  );
  give(10);
  const never = await run('/refuse/SLOTS_FULL');
  t.equal(never.status, 503);
  t.match(await never.json(), { error_type: 'runner_scheduling_failure' });
  t.equal(world.port.addresses.length, 6, 'four tries');
  world.port.addresses = ['127.0.0.1:1', other.address];
  t.equal(await (await run('/x')).text(), 'other', 'nobody listens there: nothing was begun');
  await other.close();
});

t.test('what goes wrong at the runner is told by fal’s names', async (t) => {
  const cases: [string, number, string][] = [
    ['/fail/REQUEST_TIMEOUT', 504, 'request_timeout'],
    ['/fail/RUNNER_REFUSED', 503, 'runner_connection_refused'],
    ['/fail/NOT_A_CODE', 503, 'runner_connection_error'],
    ['/headers', 502, 'runner_incomplete_response'],
    ['/die', 503, 'runner_disconnected'],
  ];
  for (const [path, status, type] of cases) {
    give();
    const answer = await run(path, { method: 'POST', body: '{}' });
    t.equal(answer.status, status, path);
    t.match(await answer.json(), { error_type: type, detail: String });
    t.equal(answer.headers.get('x-fal-error-type'), type);
    t.ok(answer.headers.get('x-fal-request-id'));
  }
  give();
  const half = await run('/break');
  t.equal(half.status, 200);
  await t.rejects(half.text(), 'a response that breaks is broken off, not ended (U3)');
});

t.test('a caller that goes away frees the runner', async (t) => {
  give();
  const controller = new AbortController();
  const call = run('/hang', { method: 'POST', body: '{}', signal: controller.signal });
  await until(() => hanging.size === 1, 'the call at the runner');
  controller.abort();
  await t.rejects(call);
  await until(() => hanging.size === 0 && world.port.open.size === 0, 'the end at the runner');
});

t.test('a slow caller does not make us hold the response', async (t) => {
  const other = await openFakeAgent((_req, res) => {
    const push = (): void => {
      while (res.write(Buffer.alloc(65_536))) written += 65_536;
      written += 65_536;
      res.once('drain', push);
    };
    push();
  });
  let written = 0;
  world.port.addresses = [other.address];
  const socket = connect(world.tcpPort, '127.0.0.1');
  socket.pause();
  socket.write('GET /run/acme/echo/ HTTP/1.1\r\nhost: localhost\r\n\r\n');
  let before = -1;
  await until(() => {
    const still = written > 0 && written === before;
    before = written;
    return still;
  }, 'a standstill');
  t.ok(written < 32 * 1024 * 1024, `the runner was held after ${written} bytes`);
  socket.destroy();
  await until(() => world.port.open.size === 0, 'its end');
  await other.close();
});

t.test('an app that takes longer than its request timeout is a 504', async (t) => {
  world.port.requestTimeoutMs = -4_800;
  give();
  const answer = await run('/hang', { method: 'POST', body: '{}' });
  t.equal(answer.status, 504, 'the agent did not keep the time, so we do');
  t.match(await answer.json(), { error_type: 'request_timeout' });
  world.port.requestTimeoutMs = 60_000;
});

t.test('the end: every granted slot was given back once (D1)', async (t) => {
  await until(() => world.port.open.size === 0, 'the last end');
  t.same(world.errors, []);
  await world.close();
  await agent.close();
});

function waitingCalls(): number {
  return world.port.waitingCalls;
}
