// /v1, health, metrics, the API document, and the routes of agents.
import t from 'tap';
import { openApiDocument } from '../../coordinator/api/openapi-document.ts';
import { routeLines } from '../../coordinator/api/routes.ts';
import { requestView, runnerView, errorView } from '../../coordinator/api/views.ts';
import { systemChance } from '../../shared/chance.ts';
import { digestOf, hexOf } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { newRequestId, partitionOfApp } from '../../shared/ids.ts';
import { attemptToken, grantToken } from '../../shared/token.ts';
import { golden } from '../golden.ts';
import { openWorld, until, type World } from './api-world.ts';

let world: World;
t.before(async () => {
  world = await openWorld();
});

type Json = Record<string, unknown>;

async function call(path: string, init: RequestInit = {}): Promise<{ status: number; body: Json }> {
  const answer = await fetch(`${world.base}${path}`, init);
  const text = await answer.text();
  return {
    status: answer.status,
    body: (text.startsWith('{') ? JSON.parse(text) : { text }) as Json,
  };
}

const deploy = (spec: unknown) =>
  call('/v1/apps', {
    method: 'POST',
    body: typeof spec === 'string' ? spec : JSON.stringify(spec),
  });

t.test('the route table is the contract', async (t) => {
  await golden(t, 'api.txt', routeLines());
  const document = openApiDocument('0');
  t.equal(document['openapi'], '3.1.0');
  const served = await call('/openapi.json');
  t.same(Object.keys(served.body['paths'] as Json), Object.keys(document['paths'] as Json));
  const text = JSON.stringify(served.body);
  t.match(text, /"operationId":"post_v1_apps"/);
  t.match(text, /scaling_delay/, 'the app file is described');
});

t.test('deploy: resolved, warned, refused by field', async (t) => {
  const spec = { app: 'acme/cutout', image: 'registry.example/cutout:1', secrets: ['HF_TOKEN'] };
  const good = await deploy(spec);
  t.equal(good.status, 201);
  const imageDigest = digestOf(spec.image);
  t.match(good.body, { app: 'acme/cutout', number: 1, imageDigest, warnings: [/^secrets: /] });
  t.match(world.port.deploys.at(-1), { imageDigest, spec: { scaling: { max_concurrency: 4 } } });
  const refused: [unknown, number, string, RegExp][] = [
    ['{"app":', 400, 'INPUT_INVALID', /^body$/],
    ['', 400, 'INPUT_INVALID', /^app$/],
    ['[]', 400, 'INPUT_INVALID', /^body$/],
    [{ ...spec, app: 'NO' }, 400, 'INPUT_INVALID', /^app$/],
    [{ ...spec, colour: 'red' }, 400, 'INPUT_INVALID', /^colour$/],
    [
      { ...spec, scaling: { max_concurrency: -1 } },
      400,
      'INPUT_INVALID',
      /^scaling\.max_concurrency$/,
    ],
    [{ app: 'acme/p', command: ['x'], dir: '.' }, 400, 'INPUT_INVALID', /^dir_digest$/],
    [
      { app: 'acme/p', command: ['x'], dir: '.', dir_digest: digestOf('not there') },
      400,
      'INPUT_INVALID',
      /^dir_digest$/,
    ],
    [
      { ...spec, weights: [{ from: 'hf://org/model', to: '/data/x' }] },
      501,
      'NOT_SUPPORTED',
      /^weights\[0\]\.from$/,
    ],
    [`{"app":"acme/x","image":"${'x'.repeat(300_000)}"}`, 413, 'INPUT_TOO_LARGE', /^$/],
  ];
  for (const [body, status, code, field] of refused) {
    const answer = await deploy(body);
    const error = (answer.body['error'] ?? {}) as Json;
    t.equal(answer.status, status, `${code} ${field}`);
    t.equal(error['code'], code);
    t.match(error['field'] ?? '', field);
    t.ok(errorView.safeParse(answer.body).success);
  }
  const other = await openWorld(
    {},
    {
      resolveImage: async () => {
        throw new Failure('IMAGE_NOT_FOUND', 'registry.example has no cutout:1');
      },
    },
  );
  const answer = await fetch(`${other.base}/v1/apps`, {
    method: 'POST',
    body: JSON.stringify(spec),
  });
  t.equal(answer.status, 404);
  t.match(await answer.json(), { error: { code: 'IMAGE_NOT_FOUND', field: 'image' } });
  await other.close();
});

t.test('a packed folder is stored by its digest and then deployed', async (t) => {
  const bytes = Buffer.from('a packed folder');
  const digest = digestOf(bytes);
  const put = (name: string) => call(`/v1/blobs/${name}`, { method: 'PUT', body: bytes });
  t.match(await put(hexOf(digest)), { status: 201, body: { digest, sizeBytes: bytes.byteLength } });
  t.match(await put(digest), { status: 201 }, 'again, and by the full digest');
  t.match(await put(hexOf(digestOf('x'))), {
    status: 400,
    body: { error: { code: 'INPUT_INVALID' } },
  });
  t.match(await put('..%2f..%2fetc'), { status: 400 });
  const answer = await deploy({
    app: 'acme/p',
    command: ['node', 'x'],
    dir: '.',
    dir_digest: digest,
  });
  t.equal(answer.status, 201);
});

t.test('requests: shown without payload, with why it waits; input and output apart', async (t) => {
  world.port.held = true;
  const { request_id: id } = await world.fal.queue.submit('acme/echo', { input: { secret: 1 } });
  const waiting = await call(`/v1/requests/${id}`);
  t.match(waiting.body, {
    status: 'IN_QUEUE',
    position: 0,
    waiting: { code: 'runners_busy', text: String },
    inputBytes: 12,
  });
  t.ok(requestView.strict().safeParse(waiting.body).success, 'as the table says');
  t.notMatch(JSON.stringify(waiting.body), /secret/);
  t.match(await call(`/v1/requests/${id}/output`), {
    status: 409,
    body: { error: { code: 'CONFLICT' } },
  });
  world.port.release();
  await until(() => world.port.records.get(id as never)?.state.kind === 'done', 'the end');
  const done = await call(`/v1/requests/${id}`);
  t.match(done.body, { status: 'COMPLETED', httpStatus: 200, runnerId: world.port.runnerId });
  t.ok(requestView.strict().safeParse(done.body).success);
  t.same((await call(`/v1/requests/${id}/input`)).body, { secret: 1 });
  t.same((await call(`/v1/requests/${id}/output`)).body, { secret: 1 });
  const list = await call('/v1/requests?app=acme/echo&limit=1');
  t.match(list.body, { items: [{ id }] });
  t.match(await call('/v1/requests?limit=0'), { status: 400, body: { error: { field: 'limit' } } });
  t.match(await call('/v1/requests/nothing'), { status: 404 });
});

t.test('runners, apps, nodes', async (t) => {
  const { runnerId } = world.port;
  const runners = await call('/v1/runners?all');
  t.ok(runnerView.strict().safeParse((runners.body['items'] as unknown[])[0]).success);
  t.match(await call(`/v1/runners/${runnerId}`), { status: 200, body: { id: runnerId } });
  t.match(await call('/v1/runners/none'), { status: 404, body: { error: { code: 'NOT_FOUND' } } });
  t.match(await call(`/v1/runners/${runnerId}/logs`), {
    body: { text: 'first line\nsecond line\n' },
  });
  t.match(await call(`/v1/runners/${runnerId}/logs?offset=6&follow=1`), {
    body: { text: 'line\nsecond line\n' },
  });
  const stop = (body: string) => call(`/v1/runners/${runnerId}/stop`, { method: 'POST', body });
  t.match(await stop('{"how":"kill"}'), { status: 202, body: { status: 'stopping' } });
  t.match(await stop(''), { status: 202 }, 'an empty body is the default');
  t.match(await stop('{"how":"gently"}'), { status: 400, body: { error: { field: 'how' } } });
  for (const path of ['/v1/apps', '/v1/nodes', '/v1/nodes/'])
    t.same((await call(path)).body, { items: [] });
  for (const path of [
    '/v1/apps/acme/none',
    '/v1/apps/acme/none/revisions',
    '/v1/nothing',
    '/nothing',
  ])
    t.match(await call(path), { status: 404, body: { error: { code: 'NOT_FOUND', doc: String } } });
});

t.test('health, readiness, metrics, page', async (t) => {
  t.match(await call('/healthz'), {
    status: 200,
    body: { status: 'ok', version: '0.0.0-test', epoch: 7 },
  });
  t.match(await call('/readyz'), { status: 200 });
  world.port.readyAnswer = { yes: false, no: 'the store is being opened' };
  t.match(await call('/readyz'), { status: 503, body: { reason: 'the store is being opened' } });
  t.match(await call('/healthz'), { status: 200 }, 'the process lives');
  world.port.readyAnswer = { yes: true };
  const { text } = (await call('/metrics')).body as { text: string };
  t.match(text, 'fal_app_runners{application="acme/echo",state="IDLE"} 3');
  t.match(text, 'fal_app_queue_size{application="acme/echo"} 1');
  t.match(text, /runmesh_requests_submitted_total\{application="acme\/echo"\} \d/);
  t.match(text, /nodejs_eventloop_lag_seconds/);
  t.match((await call('/')).body['text'], /queue\.fal\.run/);
});

t.test('routes of agents: a digest alone opens nothing (C5)', async (t) => {
  const { digest } = await world.payloads.write(chunks('payload bytes'), { maxBytes: 100 });
  const { tokenKey } = world;
  const get = (bearer?: string, name = hexOf(digest)) =>
    call(`/agent/payloads/${name}`, {
      headers: bearer === undefined ? {} : { authorization: `Bearer ${bearer}` },
    });
  t.match(await get(), { status: 401 });
  t.match(await get(grantToken(tokenKey, digestOf('another'))), { status: 401 });
  t.match(await get(grantToken(tokenKey, digest)), {
    status: 200,
    body: { text: 'payload bytes' },
  });
  t.match(await get(grantToken(tokenKey, digest), '../x'), { status: 404 });
  const input = JSON.stringify({ data: 'x'.repeat(20_000) });
  world.port.held = true;
  const { request_id: id } = await world.fal.queue.submit('acme/echo', {
    input: JSON.parse(input) as Json,
  });
  const attemptOf = (requestId: string) =>
    attemptToken(tokenKey, {
      partition: partitionOfApp('acme/echo'),
      epoch: 1,
      requestId: requestId as never,
      number: 1,
      nonce: '0'.repeat(16),
    });
  const name = hexOf(digestOf(input));
  t.match(await get(attemptOf(id), name), { status: 200 }, 'the attempt whose input it is');
  t.match(await get(attemptOf(id)), { status: 401 }, 'not for other payloads');
  t.match(await get(attemptOf(newRequestId(0, 1, systemChance)), name), { status: 401 });
  const put = (token: string, body: string) =>
    call(`/agent/results/${token}`, { method: 'PUT', body });
  const result = await put(attemptOf(id), 'a large result');
  t.match(result, { status: 201, body: { digest: digestOf('a large result'), sizeBytes: 14 } });
  t.ok(await world.payloads.has(digestOf('a large result')));
  t.match(await put('a1.1.1.forged', 'x'), { status: 401 });
  world.port.release();
});

t.test('the end', async (t) => {
  t.same(world.errors, []);
  await world.close();
});

async function* chunks(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}
