// The main job, for real: processes of their own, a docker-registry, runc containers, fal's client. Deployed, called in every
// way that callers have, states in order, cached, scaled, and gone.
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError, ValidationError } from '@fal-ai/client';
import t from 'tap';
import { until } from '../../examples/demo/programs.ts';
import { serveWeights } from '../../examples/images/weights-server.ts';
import type { RunnerView } from '../../coordinator/core/query.ts';
import { cgiApp, executionsIn } from './cgi-app.ts';
import { openStage, whyNotHere } from './stage.ts';

const EXAMPLES = join(import.meta.dirname, '../../examples');
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const statesOf = (runner: RunnerView | undefined): string[] =>
  (runner?.states ?? []).map(({ state }) => state);
const failureOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );

// Also when it is run by hand: tap gives a file 30 s.
t.setTimeout(110_000);

t.test('the main job', { skip: await whyNotHere() }, async (t) => {
  const stage = await openStage(t, ['node-a', 'node-b']);
  const { client, mesh } = stage;
  const post = (path: string, body: string | Uint8Array<ArrayBuffer>, type = 'application/json') =>
    fetch(`${mesh.url}${path}`, {
      method: 'POST',
      body,
      headers: { 'content-type': type, 'x-caller': 'me' },
    });

  await t.test(
    'an image that nobody built for us: cold, idle, gone; then without a pull',
    async (t) => {
      const example = await readFile(join(EXAMPLES, 'busybox/app.yaml'), 'utf8');
      await stage.deploy(
        example
          .replace('127.0.0.1:5000/demo/busybox:1', stage.image)
          .replace('keep_alive: 10', 'keep_alive: 0.3'),
      );
      for (const pull of [['DOCKER_PULL'], []]) {
        const seen: string[] = [];
        const { data, requestId } = await client.subscribe('demo/busybox/cgi-bin/echo', {
          input: { a: 1 },
          mode: 'polling',
          pollInterval: 20,
          onQueueUpdate: ({ status }) => {
            if (seen.at(-1) !== status) seen.push(status);
          },
        });
        t.strictSame(data, { method: 'POST', input: { a: 1 } });
        t.equal(seen[0], 'IN_QUEUE', 'a cold start waits');
        t.equal(seen.at(-1), 'COMPLETED');
        const [runner] = (
          await stage.runnersWhen('demo/busybox', 'the runner is gone', (all) =>
            all.every(({ state }) => state === 'TERMINATED'),
          )
        ).slice(-1);
        t.strictSame(statesOf(runner), [
          'PENDING',
          ...pull,
          'SETUP',
          'IDLE',
          'RUNNING',
          'IDLE',
          'TERMINATING',
          'TERMINATED',
        ]);
        t.equal(runner?.reason, 'keep_alive');
        t.equal(runner?.id, (await stage.request(requestId)).runnerId);
      }
      const [first, second, ...more] = await stage.runners('demo/busybox');
      t.equal(more.length, 0);
      t.equal(second?.node?.name, first?.node?.name, 'the node that has the image');
    },
  );

  await stage.deploy(cgiApp({ app: 'demo/cgi', image: stage.image }));

  await t.test('subscribe by streaming', async (t) => {
    const seen: string[] = [];
    const { data, requestId } = await client.subscribe('demo/cgi/cgi-bin/slow', {
      input: { tenths: 3 },
      mode: 'streaming',
      onQueueUpdate: ({ status }) => void seen.push(status),
    });
    t.strictSame(data, { slept: true });
    t.strictSame([...new Set(seen)], ['IN_QUEUE', 'IN_PROGRESS', 'COMPLETED']);
    t.match(await stage.request(requestId), { status: 'COMPLETED', httpStatus: 200, attempts: 1 });
  });

  await t.test('submit, status, result', async (t) => {
    const submitted = await client.queue.submit('demo/cgi/cgi-bin/slow', { input: { tenths: 5 } });
    const { request_id: requestId } = submitted;
    t.match(submitted, {
      status: 'IN_QUEUE',
      response_url: `${mesh.url}/queue/demo/cgi/requests/${requestId}`,
      queue_position: 0,
    });
    const early = await failureOf(client.queue.result('demo/cgi', { requestId }));
    t.ok(early instanceof ApiError && early.status === 400, 'no result yet');
    await until('it is done', async () => {
      const { status } = await client.queue.status('demo/cgi', { requestId });
      return status === 'COMPLETED';
    });
    const status = await client.queue.status('demo/cgi', { requestId, logs: true });
    t.match(status, { status: 'COMPLETED', request_id: requestId, logs: [] });
    const inference = status.status === 'COMPLETED' ? status.metrics?.inference_time : undefined;
    t.ok(inference !== null && inference !== undefined && inference >= 0.5 && inference < 5);
    const result = await client.queue.result('demo/cgi', { requestId });
    t.strictSame(result.data, { slept: true });
    t.equal(result.requestId, requestId);
    const [runner] = await stage.runners('demo/cgi');
    t.equal(executionsIn(await stage.log(runner?.id ?? ''), requestId), 1);
  });

  await t.test('cancel: in the queue, and while it runs', async (t) => {
    const submit = async (): Promise<string> =>
      (await client.queue.submit('demo/cgi/cgi-bin/slow', { input: { tenths: 300 } })).request_id;
    const running = await submit();
    const statusIs = (requestId: string, wanted: string): Promise<void> =>
      until(`${requestId} is ${wanted}`, async () => {
        const { status } = await client.queue.status('demo/cgi', { requestId });
        return status === wanted;
      });
    await statusIs(running, 'IN_PROGRESS');
    const queued = await submit();
    const status = await client.queue.status('demo/cgi', { requestId: queued });
    t.match(status, { status: 'IN_QUEUE', queue_position: 0 });
    t.match(await stage.request(queued), { waiting: { code: 'max_concurrency' } });

    await client.queue.cancel('demo/cgi', { requestId: queued });
    const first = await failureOf(client.queue.result('demo/cgi', { requestId: queued }));
    t.ok(first instanceof ApiError && first.status === 499, 'the queued one ends at once');
    t.match(first, { body: { error_type: 'client_cancelled' } });

    await client.queue.cancel('demo/cgi', { requestId: running });
    await statusIs(running, 'COMPLETED');
    const second = await failureOf(client.queue.result('demo/cgi', { requestId: running }));
    t.ok(second instanceof ApiError && second.status === 499, 'the running one as the app says');
    t.match(second, { body: { detail: 'cancelled by the app' } });
    const again = await failureOf(client.queue.cancel('demo/cgi', { requestId: running }));
    t.match(again, { status: 400, body: { status: 'ALREADY_COMPLETED' } });
    const [runner] = await stage.runners('demo/cgi');
    t.equal(executionsIn(await stage.log(runner?.id ?? ''), queued), 0, 'it never ran');
  });

  await t.test('run: direct, with the status and the headers of the app', async (t) => {
    const { data } = await client.run('demo/cgi/cgi-bin/echo', { input: { n: 2 } });
    t.match(data, { method: 'POST', port: '8000', input: { n: 2 } });
    const answer = await post('/run/demo/cgi/cgi-bin/echo?a=b&c', '{"n":3}');
    t.equal(answer.status, 200);
    t.match(await answer.json(), { query: 'a=b&c', header: 'me', input: { n: 3 } });
    const [runner] = await stage.runners('demo/cgi');
    t.equal(answer.headers.get('x-fal-served-from'), runner?.id);
    t.match(answer.headers.get('x-fal-request-id'), /^[0-9a-f-]{36}$/);
    const get = await fetch(`${mesh.url}/run/demo/cgi/health`);
    t.equal(await get.text(), 'ok\n', 'any method and path');

    const teapot = await post('/run/demo/cgi/cgi-bin/status', '{"status":418}');
    t.equal(teapot.status, 418);
    t.equal(teapot.headers.get('x-app-said'), 'so');
    const submitted = await post('/queue/demo/cgi/cgi-bin/status', '{"status":418}');
    const { response_url: url } = (await submitted.json()) as { response_url: string };
    await until('the queued one is there', async () => (await fetch(url)).status !== 400);
    const queued = await fetch(url);
    t.equal(queued.status, 418, 'the queue hands it on just so');
    t.equal(queued.headers.get('x-app-said'), 'so');
    t.equal(queued.headers.get('x-fal-served-from'), runner?.id);
    t.equal(await queued.text(), await teapot.text());
  });

  await t.test("422 is fal's ValidationError", async (t) => {
    const app = 'demo/cgi/cgi-bin/status';
    const input = { status: 422 };
    const calls = [client.run(app, { input }), client.subscribe(app, { input, pollInterval: 20 })];
    for (const call of calls) {
      const thrown = await failureOf(call);
      if (!(thrown instanceof ValidationError)) t.fail(`not a ValidationError: ${String(thrown)}`);
      else {
        t.equal(thrown.status, 422);
        t.match(thrown.fieldErrors, [{ loc: ['body', 'status'], msg: 'as asked' }]);
      }
    }
  });

  await t.test('large inputs and results come back bit for bit', async (t) => {
    const bytes = new Uint8Array(randomBytes(3_000_000));
    const type = 'application/octet-stream';
    const direct = await post('/run/demo/cgi/cgi-bin/mirror', bytes, type);
    t.equal(sha256(new Uint8Array(await direct.arrayBuffer())), sha256(bytes), 'direct');
    const submitted = await post('/queue/demo/cgi/cgi-bin/mirror', bytes, type);
    const { request_id: id } = (await submitted.json()) as { request_id: string };
    await until('it is done', async () => (await stage.request(id)).status === 'COMPLETED');
    t.match(await stage.request(id), { inputBytes: 3_000_000, outputBytes: 3_000_000 });
    const result = await fetch(`${mesh.url}/queue/demo/cgi/requests/${id}`);
    t.equal(result.headers.get('content-type'), type);
    t.equal(result.headers.get('content-length'), '3000000');
    t.equal(sha256(new Uint8Array(await result.arrayBuffer())), sha256(bytes), 'queued');
    for (const sizeBytes of [16_384, 16_385]) {
      const text = 'x'.repeat(sizeBytes - '{"t":""}'.length);
      const { data } = await client.subscribe('demo/cgi/cgi-bin/mirror', { input: { t: text } });
      t.strictSame(data, { t: text }, `${sizeBytes} bytes, at the edge of what goes inline`);
    }
  });

  await t.test('max_multiplexing: two at once on one runner, the third waits', async (t) => {
    const scaling = { max_concurrency: 1, max_multiplexing: 2 };
    await stage.deploy(cgiApp({ app: 'demo/multi', image: stage.image, scaling }));
    const results = [1, 2, 3].map(() =>
      client.subscribe('demo/multi/cgi-bin/slow', { input: { tenths: 6 }, pollInterval: 30 }),
    );
    const [runner, ...others] = await stage.runnersWhen(
      'demo/multi',
      'two requests run',
      ([one]) => one?.requests.length === 2,
    );
    t.match(runner, { slots: 2, inFlight: 2, state: 'RUNNING' });
    t.equal(others.length, 0);
    t.match(await stage.get('/v1/apps/demo/multi'), { queued: 1, inFlight: 2, runners: 1 });
    for (const { data } of await Promise.all(results)) t.strictSame(data, { slept: true });
    t.equal((await stage.runners('demo/multi')).length, 1);
  });

  await t.test('weights: verified, where the app file says, read-only', async (t) => {
    const folder = join(stage.folder, 'weights');
    await mkdir(folder);
    const bytes = randomBytes(200_000);
    await writeFile(join(folder, 'model.bin'), bytes);
    const server = await serveWeights(folder);
    t.teardown(() => server.stop());
    const to = '/data/models/model.bin';
    const weights = [{ from: `${server.url}/model.bin`, sha256: sha256(bytes), to }];
    const more = { weights };
    await stage.deploy(cgiApp({ app: 'demo/weights', image: stage.image, more }));
    const { data } = await client.subscribe('demo/weights/cgi-bin/sum', { input: { file: to } });
    t.strictSame(data, { sha256: sha256(bytes), writable: false });
    t.equal(server.served(), 1, 'fetched once');
    const [runner] = await stage.runners('demo/weights');
    t.ok(statesOf(runner).includes('DOCKER_PULL'), 'they come from elsewhere');
  });

  await t.test('stream: events as the app sends them', async (t) => {
    const deployed = await stage.cli('deploy', join(EXAMPLES, 'hello/app.yaml'));
    t.equal(deployed.code, 0, deployed.err);
    const stream = await client.stream('demo/hello', { input: { count: 4 } });
    const events: { event: unknown; at: number }[] = [];
    for await (const event of stream) events.push({ event, at: Date.now() });
    t.strictSame(
      events.map(({ event }) => event),
      [1, 2, 3, 4].map((at) => ({ at, of: 4 })),
    );
    const spreadMs = (events.at(-1)?.at ?? 0) - (events[0]?.at ?? 0);
    t.ok(spreadMs >= 200, `not held back on the way: ${spreadMs} ms between first and last`);
    t.strictSame(await stream.done(), { at: 4, of: 4 });
  });

  await t.test(
    'a node goes, the other pulls for itself; two runners share a node and a port',
    async (t) => {
      const [agentA, agentB] = mesh.agents;
      const holder = (await stage.runners('demo/cgi')).at(-1)?.node?.name ?? '';
      const leaving = agentA?.name === holder ? agentA : agentB;
      const staying = leaving === agentA ? 'node-b' : 'node-a';
      t.not(stage.leftovers(holder).length, 0, 'there is something to clean up');
      await leaving?.stop();
      t.strictSame(stage.leftovers(holder), []);
      const images = (await stage.node(staying))?.images ?? [];
      t.strictSame(images, [], 'caches are separate');

      const scaling = { max_concurrency: 2 };
      await stage.deploy(cgiApp({ app: 'demo/pair', image: stage.image, scaling }));
      const both = [1, 2].map(() =>
        client.subscribe('demo/pair/cgi-bin/slow', { input: { tenths: 15 }, pollInterval: 30 }),
      );
      const pair = await stage.runnersWhen(
        'demo/pair',
        'both runners work',
        (all) => all.filter(({ state }) => state === 'RUNNING').length === 2,
      );
      t.strictSame(
        pair.map(({ node }) => node?.name),
        [staying, staying],
      );
      t.ok(pair.some((runner) => statesOf(runner).includes('DOCKER_PULL')));
      for (const { data } of await Promise.all(both)) t.strictSame(data, { slept: true });
      const echoes = await Promise.all(
        [1, 2].map(() => client.run('demo/pair/cgi-bin/echo', { input: {} })),
      );
      for (const { data } of echoes) t.match(data, { port: '8000' });
    },
  );

  await t.test('after SIGTERM nothing is left', async (t) => {
    t.not(stage.leftovers().length, 0);
    await mesh.stop();
    t.strictSame(stage.leftovers(), []);
    for (const { process } of [mesh.coordinator, ...mesh.agents]) t.equal(process.exitCode, 0);
  });
});
