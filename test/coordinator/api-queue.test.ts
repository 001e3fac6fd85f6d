// The queue over HTTP, by fal's unmodified client and by hand (fal-contract §2).
import { connect, type Socket } from 'node:net';
import t from 'tap';
import { Failure } from '../../shared/failure.ts';
import { openWorld, until, type World } from './api-world.ts';

let world: World;
t.before(async () => {
  world = await openWorld();
});

const post = (path: string, body: string, headers: Record<string, string> = {}) =>
  fetch(`${world.base}/queue/${path}`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', ...headers },
  });

async function submitted(app = 'acme/echo', body = '{}'): Promise<string> {
  const answer: unknown = await (await post(app, body)).json();
  return String((answer as Record<string, unknown>)['request_id']);
}

t.test('fal client: subscribe by polling', async (t) => {
  const seen: string[] = [];
  const { data, requestId } = await world.fal.subscribe('acme/echo', {
    input: { prompt: 'a cat' },
    logs: true,
    pollInterval: 20,
    onQueueUpdate: (status) => seen.push(status.status),
  });
  t.same(data, { prompt: 'a cat' });
  t.match(requestId, /^[0-9a-f-]{36}$/);
  t.equal(seen.at(-1), 'COMPLETED');
});

t.test('fal client: subscribe by streaming sees every state once', async (t) => {
  world.port.held = true;
  const seen: string[] = [];
  const running = world.fal.subscribe('acme/echo', {
    input: { n: 1 },
    mode: 'streaming',
    onQueueUpdate: (status) => seen.push(status.status),
  });
  await until(() => world.port.watchers === 1 && seen.length === 1, 'the stream');
  world.port.release();
  t.same((await running).data, { n: 1 });
  t.equal(seen[0], 'IN_QUEUE');
  t.equal(seen.at(-1), 'COMPLETED');
  await until(() => world.port.watchers === 0, 'the end of the watch');
});

t.test('fal client: submit, status, result; sub-paths reach the app', async (t) => {
  world.port.apps.set('acme/paths', async (record) => ({
    status: 201,
    headers: [
      ['content-type', 'application/json'],
      ['x-app', 'yes'],
      ['x-fal-stop-runner', '1'],
    ],
    body: JSON.stringify({ path: record.path, query: record.query, method: record.method }),
  }));
  const { request_id: id } = await world.fal.queue.submit('acme/paths/deep/er', { input: {} });
  await until(() => world.port.records.get(id as never)?.state.kind === 'done', 'the result');
  const status = await world.fal.queue.status('acme/paths/deep/er', { requestId: id });
  t.equal(status.status, 'COMPLETED');
  const raw = await fetch(`${world.base}/queue/acme/paths/requests/${id}`);
  t.equal(raw.status, 201, "the app's status");
  t.equal(raw.headers.get('x-app'), 'yes', "the app's headers");
  t.equal(raw.headers.get('x-fal-stop-runner'), null, 'gateway headers are not shown');
  t.equal(raw.headers.get('x-fal-request-id'), id);
  const { data } = await world.fal.queue.result('acme/paths/deep/er', { requestId: id });
  t.match(data, { path: '/deep/er', method: 'POST' });
});

t.test('fal client: cancel in the queue ends with 499; again 400; unknown 404', async (t) => {
  world.port.held = true;
  const id = await submitted();
  await world.fal.queue.cancel('acme/echo', { requestId: id });
  const result = await fetch(`${world.base}/queue/acme/echo/requests/${id}`);
  t.equal(result.status, 499);
  t.match(await result.json(), { error_type: 'client_cancelled' });
  t.equal(result.headers.get('x-fal-error-type'), 'client_cancelled');
  const again = await fetch(`${world.base}/queue/acme/echo/requests/${id}/cancel`, {
    method: 'PUT',
  });
  t.equal(again.status, 400);
  t.same(await again.json(), { status: 'ALREADY_COMPLETED' });
  const unknown = `${id.slice(0, -4)}beef`;
  const none = await fetch(`${world.base}/queue/acme/echo/requests/${unknown}/cancel`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
  });
  t.equal(none.status, 404);
  t.match(await none.json(), { status: 'NOT_FOUND' });
  world.port.release();
});

t.test('shapes: submit, IN_QUEUE, IN_PROGRESS, COMPLETED', async (t) => {
  let finish = (): void => undefined;
  world.port.apps.set('acme/slow', async () => {
    await new Promise<void>((resolve) => (finish = resolve));
    return { status: 200, body: '{"ok":true}' };
  });
  world.port.held = true;
  const first = await submitted('acme/slow');
  const answer = await post('acme/slow', '{}');
  const body = (await answer.json()) as Record<string, unknown>;
  const id = String(body['request_id']);
  const url = `${world.base}/queue/acme/slow/requests/${id}`;
  const urls = { response_url: url, status_url: `${url}/status`, cancel_url: `${url}/cancel` };
  t.equal(answer.status, 200);
  t.equal(answer.headers.get('x-fal-request-id'), id);
  t.same(body, {
    status: 'IN_QUEUE',
    request_id: id,
    gateway_request_id: id,
    ...urls,
    queue_position: 1,
  });
  const queued = await fetch(`${url}/status/`);
  t.equal(queued.status, 202, 'trailing slash is fine');
  t.same(await queued.json(), { status: 'IN_QUEUE', request_id: id, ...urls, queue_position: 1 });
  t.equal((await fetch(url)).status, 400, 'no result yet');
  world.port.release();
  const running = `${world.base}/queue/acme/slow/requests/${first}/status`;
  await until(() => world.port.records.get(first as never)?.state.kind === 'flight', 'the flight');
  t.match(await (await fetch(`${running}?logs=true`)).json(), { status: 'IN_PROGRESS', logs: [] });
  const progress = await (await fetch(`${running}?logs=0`)).json();
  t.match(progress, { status: 'IN_PROGRESS', logs: null, metrics: {} });
  finish();
  await until(() => world.port.records.get(id as never)?.state.kind === 'flight', 'the second');
  finish();
  await until(() => world.port.records.get(id as never)?.state.kind === 'done', 'the result');
  const done = await fetch(`${world.base}/queue/acme/slow/sub/requests/${id}/status?logs=1`);
  t.equal(done.status, 200, 'the full-id form is known too');
  t.match(await done.json(), {
    status: 'COMPLETED',
    logs: [],
    metrics: { inference_time: Number },
  });
  t.equal((await fetch(`${url}/response`)).status, 200);
  t.equal((await fetch(`${url}/`)).status, 200);
  const foreign = await fetch(url.replace('acme/slow', 'acme/echo'));
  t.equal(foreign.status, 404, 'a request is found only under its own app');
});

t.test('failures: of the app, of the platform, of the caller', async (t) => {
  world.port.apps.set('acme/bad', async () => ({ status: 422, body: '{"detail":[{"msg":"no"}]}' }));
  const bad = await world.fal
    .subscribe('acme/bad', { input: {}, pollInterval: 20 })
    .catch((error: unknown) => error);
  t.match(bad, { status: 422, body: { detail: [{ msg: 'no' }] } }, 'ValidationError of the app');
  world.port.held = true;
  const id = await submitted();
  world.port.failRequest(id as never, 'START_TIMEOUT');
  const timedOut = await fetch(`${world.base}/queue/acme/echo/requests/${id}`);
  t.equal(timedOut.status, 504);
  t.equal(timedOut.headers.get('x-fal-request-timeout-type'), 'user');
  t.match(await timedOut.json(), { error_type: 'request_timeout', detail: String });
  const status = await fetch(`${world.base}/queue/acme/echo/requests/${id}/status`);
  t.equal(status.status, 200);
  t.match(await status.json(), {
    status: 'COMPLETED',
    error_type: 'request_timeout',
    error: String,
  });
  world.port.release();
  const unknown = await post('acme/nothing', '{}');
  t.equal(unknown.status, 404);
  t.match(await unknown.json(), { detail: 'Application "acme/nothing" not found' });
  t.ok(unknown.headers.get('x-fal-request-id'), 'a platform error carries an id too');
});

t.test('what steers a request is checked and kept', async (t) => {
  world.port.held = true;
  const refused: [string, Record<string, string>, RegExp][] = [
    ['acme/echo?fal_webhook=https://x.example/', {}, /^fal_webhook: /],
    ['acme/echo?fal_max_queue_length=many', {}, /^fal_max_queue_length: /],
    ['acme/echo', { 'x-fal-queue-priority': 'high' }, /^x-fal-queue-priority: /],
    ['acme/echo', { 'x-fal-request-timeout': '0.1' }, /^x-fal-request-timeout: /],
    ['acme/echo', { 'x-fal-request-timeout': '-1' }, /^x-fal-request-timeout: /],
    ['acme/echo', { 'x-fal-request-start-timeout': 'NaN' }, /^x-fal-request-start-timeout: /],
  ];
  for (const [path, headers, detail] of refused) {
    const answer = await post(path, '{}', headers);
    t.equal(answer.status, 400, path);
    t.match(await answer.json(), { detail, error_type: 'bad_request' });
  }
  const before = world.port.records.size;
  t.equal((await post('acme/echo?fal_max_queue_length=0', '{}')).status, 200, 'nobody waits yet');
  const full = await post('acme/echo?fal_max_queue_length=0', '{}');
  t.equal(full.status, 429);
  t.equal(world.port.records.size, before + 1, 'what was refused is not queued');
  const answer = await post('acme/echo/p?a=1&fal_max_queue_length=9&b', '[]', {
    'x-fal-queue-priority': 'low',
    'x-fal-request-timeout': '2.5',
    'x-fal-no-retry': 'yes',
    'x-fal-request-id': 'mine',
    'x-fal-object-lifecycle-preference': '{}',
    'x-runmesh-lease': 'forged',
    authorization: 'Key secret',
    'accept-encoding': 'br',
    'x-custom': 'kept',
  });
  const { request_id: id } = (await answer.json()) as { request_id: string };
  const record = world.port.records.get(id as never);
  t.match(record, {
    priority: 1,
    startTimeoutMs: 2500,
    noRetry: true,
    query: '?a=1&b',
    path: '/p',
  });
  const names = record?.headers.map(([name]) => name) ?? [];
  t.ok(names.includes('x-custom') && names.includes('content-type'));
  t.ok(names.includes('x-fal-object-lifecycle-preference'), 'handed on');
  for (const name of [
    'x-fal-request-id',
    'x-runmesh-lease',
    'authorization',
    'host',
    'accept-encoding',
  ])
    t.notOk(names.includes(name), `${name} is not`);
  world.port.release();
});

t.test('bodies: empty, large and too large', async (t) => {
  const large = JSON.stringify({ data: 'x'.repeat(200_000) });
  const { data } = await world.fal.subscribe('acme/echo', {
    input: JSON.parse(large) as Record<string, unknown>,
    pollInterval: 20,
  });
  t.equal(JSON.stringify(data), large, 'a body above the inline limit goes through a payload file');
  t.equal((await post('acme/echo', '')).status, 200, 'an empty JSON body');
  const tooLarge = await new Promise<string>((resolve) => {
    const socket = connectRaw();
    socket.on('data', (bytes) => resolve(String(bytes)));
    socket.write(
      'POST /queue/acme/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999999\r\n\r\n',
    );
  });
  t.match(tooLarge, /^HTTP\/1\.1 413 /);
});

t.test('status stream: shape, slow reader, broken off on shutdown', async (t) => {
  const other = await openWorld();
  other.port.held = true;
  const { request_id: id } = await other.fal.queue.submit('acme/echo', { input: {} });
  const url = `${other.base}/queue/acme/echo/requests/${id}/status/stream`;
  const answer = await fetch(url, { headers: { accept: 'application/json, text/event-stream' } });
  t.equal(answer.headers.get('content-type'), 'text/event-stream');
  const reader = answer.body?.getReader();
  const first = await reader?.read();
  t.match(Buffer.from(first?.value ?? []).toString(), /^data: \{"status":"IN_QUEUE".*\}\n\n$/);
  t.equal((await fetch(url.replace(id, `${id.slice(0, -4)}beef`))).status, 404);
  const closing = other.api.close(100);
  const end = await reader?.read().catch((error: unknown) => error);
  t.type(end, Error, 'broken off, not ended as if whole');
  await closing;
  await other.close();
});

t.test('URLs repeat the caller: Host header, proxy, public URL', async (t) => {
  const raw = async (tcpPort: number, head: string): Promise<string> =>
    new Promise((resolve) => {
      const socket = connectRaw(tcpPort);
      let text = '';
      socket.on('data', (bytes) => (text += String(bytes)));
      socket.on('close', () => resolve(text));
      socket.write(`${head}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}`);
    });
  const byHost = await raw(world.tcpPort, 'POST /acme/echo HTTP/1.1\r\nhost: queue.fal.run');
  t.match(byHost, /"response_url":"http:\/\/queue\.fal\.run\/acme\/echo\/requests\//);
  const proxied = await openWorld({ trustProxy: true });
  t.match(
    await raw(
      proxied.tcpPort,
      'POST /queue/acme/echo HTTP/1.1\r\nhost: localhost\r\nx-forwarded-proto: https\r\nx-forwarded-host: gpu.example',
    ),
    /"response_url":"https:\/\/gpu\.example\/queue\/acme/,
  );
  await proxied.close();
  const named = await openWorld({ publicUrl: 'https://gpu.example/x' });
  const { response_url: url } = await named.fal.queue.submit('acme/echo', { input: {} });
  t.match(url, /^https:\/\/gpu\.example\/x\/queue\/acme\/echo\/requests\//);
  await named.close();
});

t.test(
  'a store that fails is a 503 that clients may try again, and nothing is queued',
  async (t) => {
    world.port.failNext = new Failure('STORE_FAILED', 'unknown outcome');
    const answer = await post('acme/echo', '{}');
    t.equal(answer.status, 503);
    t.match(await answer.json(), { error_type: 'internal_error' });
  },
);

t.test('close: what runs finishes, agent links do not hold it up', async (t) => {
  const upgraded: { destroy: () => void }[] = [];
  const other = await openWorld(
    {},
    {
      link: {
        upgrade(_req, socket) {
          upgraded.push(socket);
          socket.write(
            'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
          );
        },
      },
    },
  );
  const link = connectRaw(other.tcpPort);
  link.write('GET /agent HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n');
  await until(() => upgraded.length === 1, 'the upgrade');
  let finish = (): void => undefined;
  other.port.apps.set('acme/slow', async () => {
    await new Promise<void>((resolve) => (finish = resolve));
    return { status: 200, body: '{}' };
  });
  const { request_id: id } = await other.fal.queue.submit('acme/slow', { input: {} });
  const url = `${other.base}/queue/acme/slow/requests/${id}/status/stream`;
  const answer = await fetch(url);
  await until(() => other.port.watchers === 1, 'the stream');
  let closed = false;
  const closing = other.api.close(5_000).then(() => (closed = true));
  finish();
  t.match(await answer.text(), /"status":"COMPLETED".*\n\n$/, 'the stream came to its end');
  await until(() => closed, 'the close, well within the grace');
  await closing;
  for (const socket of upgraded) socket.destroy();
  link.destroy();
  await other.close();
});

t.test('nothing of ours failed meanwhile', async (t) => {
  t.same(world.errors, []);
  await world.close();
});

function connectRaw(tcpPort = world.tcpPort): Socket {
  const socket = connect(tcpPort, '127.0.0.1');
  socket.on('error', () => socket.destroy());
  return socket;
}
