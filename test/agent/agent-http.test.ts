// The HTTP of the agent over real sockets: direct calls with leases, streamed both ways, and its pages.
import { randomBytes } from 'node:crypto';
import { request as httpRequest, type IncomingMessage, type RequestListener } from 'node:http';
import { connect } from 'node:net';
import { buffer, text } from 'node:stream/consumers';
import t from 'tap';
import { leaseToken } from '../../shared/token.ts';
import type { RunnerId } from '../../shared/ids.ts';
import { assignment, bench, echo, until, type Bench } from '../fakes/agent-bench.ts';

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

interface CallOptions {
  path?: string;
  method?: string;
  lease?: string | undefined;
  headers?: Record<string, string>;
  body?: Buffer | string;
}

function open(
  b: Bench,
  runnerId: RunnerId,
  options: CallOptions = {},
): ReturnType<typeof httpRequest> {
  const { path = '/', method = 'POST', headers = {}, body } = options;
  const lease = 'lease' in options ? options.lease : b.fake.lease(runnerId);
  const request = httpRequest(`${b.agent.url}/runners/${runnerId}/http${path}`, {
    method,
    agent: false,
    headers: { ...headers, ...(lease === undefined ? {} : { 'x-runmesh-lease': lease }) },
  });
  request.end(body);
  return request;
}

async function call(b: Bench, runnerId: RunnerId, options: CallOptions = {}): Promise<Answer> {
  const request = open(b, runnerId, options);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve);
    request.once('error', reject);
  });
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: await buffer(response),
  };
}

const calls: string[] = [];
const app: RequestListener = (request, response) => {
  const [path] = (request.url ?? '').split('?');
  if (path === '/health') return void response.end();
  calls.push(`${request.method} ${request.url}`);
  if (path === '/sse') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    request.once('data', (first: Buffer) => response.write(`data: ${first}\n\n`));
    return void request.once('end', () => response.end('data: end\n\n'));
  }
  if (path === '/hang') return void request.resume();
  if (path === '/broken') {
    response.writeHead(200, { 'content-length': '100' });
    return void response.write('half', () => request.socket.destroy());
  }
  if (path === '/reset') return void request.socket.destroy();
  if (path === '/words')
    return void request.socket.end('HTTP/1.1 200 \u2713 fine\r\ncontent-length: 2\r\n\r\nok');
  if (path === '/status')
    return void response
      .writeHead(418, 'Teapot', { 'x-runmesh-refused': 'SLOTS_FULL' })
      .end('short');
  response.setHeader('x-seen', JSON.stringify(request.rawHeaders));
  echo(request, response);
};

t.test('a direct call goes through as it is', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready();
  const bytes = randomBytes(500_000);
  const answer = await call(b, runnerId, {
    path: '/x?y=1&z',
    body: bytes,
    headers: { 'content-type': 'image/png', 'x-own': 'a' },
  });
  t.equal(answer.status, 200);
  t.ok(answer.body.equals(bytes));
  t.equal(answer.headers['content-type'], 'image/png');
  t.ok(calls.includes('POST /x?y=1&z'));
  t.match(answer.headers['x-seen'], 'x-own');
  t.notMatch(answer.headers['x-seen'], /x-runmesh/i, 'the lease is not for the app');
  const odd = await call(b, runnerId, { path: '/status', method: 'GET' });
  t.match([odd.status, odd.body.toString()], [418, 'short']);
  t.notOk(odd.headers['x-runmesh-refused'], 'an app cannot speak in our name');
  const words = await call(b, runnerId, { path: '/words' });
  t.match([words.status, words.body.toString()], [200, 'ok'], 'a reason phrase in UTF-8');
  const empty = await call(b, runnerId, { path: '', method: 'DELETE' });
  t.equal(empty.status, 200);
});

t.test('both directions stream: the answer begins before the request ends', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready();
  const request = httpRequest(`${b.agent.url}/runners/${runnerId}/http/sse`, {
    method: 'POST',
    headers: { 'x-runmesh-lease': b.fake.lease(runnerId) },
  });
  request.write('one');
  const response = await new Promise<IncomingMessage>((resolve) =>
    request.once('response', resolve),
  );
  t.equal(response.headers['content-type'], 'text/event-stream');
  const first = await new Promise<Buffer>((resolve) => response.once('data', resolve));
  t.equal(first.toString(), 'data: one\n\n');
  request.end();
  t.equal(await text(response), 'data: end\n\n');
});

t.test('a lease opens one call on one runner', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready({ slots: 10 });
  const other = await b.ready({ slots: 10 });
  const lease = b.fake.lease(runnerId);
  t.equal((await call(b, runnerId, { lease })).status, 200);
  for (const [what, bad] of [
    ['used', lease],
    ['none', undefined],
    ['of another runner', b.fake.lease(other)],
    ['forged', leaseToken(randomBytes(32), runnerId, '99')],
    ['cut', lease.slice(0, -1)],
  ] as const) {
    const answer = await call(b, runnerId, { lease: bad });
    t.equal(answer.status, 401, what);
    t.equal(answer.headers['x-runmesh-refused'], 'UNAUTHORIZED', what);
  }
  const held = b.fake.lease(runnerId);
  b.fake.drop();
  await until(() => b.fake.hellos.length === 2, 'linked again');
  t.equal((await call(b, runnerId, { lease: held })).status, 200, 'this fake keeps its key');
});

t.test('a stopping agent lets attempts finish, and takes no direct call any more', async (t) => {
  await using b = await bench({ app: () => app, settings: { drainMs: 5_000 } });
  const runnerId = await b.ready({ slots: 2 });
  const attempt = assignment(runnerId, { path: '/hang' });
  b.fake.send('assign', attempt);
  await b.fake.next('started');
  const stopped = b.agent.stop();
  const late = await call(b, runnerId);
  t.match([late.status, late.headers['x-runmesh-refused']], [503, 'NODE_DRAINING']);
  b.fake.send('revoke', { token: attempt.token });
  await stopped;
});

t.test('direct calls and attempts share the slots', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready({ slots: 1 });
  const attempt = assignment(runnerId, { path: '/hang' });
  b.fake.send('assign', attempt);
  await b.fake.next('started');
  const full = await call(b, runnerId);
  t.match([full.status, full.headers['x-runmesh-refused']], [503, 'SLOTS_FULL']);
  b.fake.send('revoke', { token: attempt.token });
  await until(async () => (await call(b, runnerId)).status === 200, 'slot back');
  const gone = await call(b, assignment(runnerId).runnerId.replace(/.$/, 'z') as RunnerId);
  t.match([gone.status, gone.headers['x-runmesh-refused']], [503, 'RUNNER_GONE']);
  await b.fake.next('runner', ({ state }) => state === 'RUNNING');
});

t.test('a caller that goes, or time that runs out, cancels at the runner (H3)', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready({ slots: 1 });
  calls.length = 0;
  const request = open(b, runnerId, { path: '/hang?x=1' });
  request.on('error', () => undefined);
  await until(() => calls.includes('POST /hang?x=1'), 'it runs');
  request.destroy();
  await until(() => calls.includes('POST /hang/cancel'), 'cancelled');
  calls.length = 0;
  await until(async () => {
    const late = await call(b, runnerId, {
      path: '/hang',
      headers: { 'x-runmesh-timeout-ms': '100' },
    });
    if (late.headers['x-runmesh-refused']) return false;
    t.match([late.status, late.headers['x-runmesh-failure']], [504, 'REQUEST_TIMEOUT']);
    return true;
  }, 'the slot is back after the first');
  await until(() => calls.includes('POST /hang/cancel'), 'cancelled');
});

t.test('what breaks before the head has a code, after it the connection breaks (H2)', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready({ slots: 1 });
  const reset = await call(b, runnerId, { path: '/reset' });
  t.match([reset.status, reset.headers['x-runmesh-failure']], [503, 'RUNNER_CONNECTION']);
  await t.rejects(call(b, runnerId, { path: '/broken' }), { code: 'ECONNRESET' });
  t.equal((await call(b, runnerId)).status, 200, 'the slot is free again');
});

t.test('pages, and what is not served', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready();
  await call(b, runnerId);
  const get = (path: string, init?: RequestInit): Promise<Response> =>
    fetch(b.agent.url + path, init);
  t.match(await (await get('/healthz')).json(), {
    status: 'ok',
    linked: true,
    node: b.agent.nodeId,
  });
  t.match(await (await get('/cache/stats')).json(), {
    node: b.agent.nodeId,
    sources: {},
    content: {},
  });
  const metrics = await (await get('/metrics')).text();
  t.match(metrics, 'runmesh_agent_slots 1');
  t.match(metrics, /runmesh_agent_runners\{state="(IDLE|RUNNING)"\} 1/);
  t.match(metrics, 'runmesh_agent_direct_calls_total{how="answered"} 1');
  t.match(metrics, 'runmesh_agent_cache_bytes_total{source="origin"} 0');
  t.equal((await get('/blobs/sha256:00')).status, 404);
  t.equal((await get(`/runners/${runnerId}`)).status, 404);
  t.equal((await get(`/runners/${runnerId}/httpx`)).status, 404);
  t.equal((await get('/runners/../x/http/')).status, 404);
  t.equal((await get('/metrics', { method: 'POST' })).status, 405);
  const { hostname, port } = new URL(b.agent.url);
  const socket = connect(Number(port), hostname);
  socket.write(
    `GET /runners/${runnerId}/http/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n`,
  );
  t.match(await text(socket), 'HTTP/1.1 501');
  b.fake.options.heartbeatMs = 50;
  await b.fake.stop();
  await until(
    async () => (await (await get('/healthz')).text()).includes('"linked":false'),
    'unlinked',
  );
  t.match((await call(b, runnerId)).headers['x-runmesh-refused'], 'UNAVAILABLE');
});
