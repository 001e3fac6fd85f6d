// Everything that can be wrong, against a real mesh: refused by name with what to do next, and after each of it the mesh still
// serves and has lost nothing.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { ApiError } from '@fal-ai/client';
import t, { type Test } from 'tap';
import { startProgram, until } from '../../examples/demo/programs.ts';
import { serveWeights } from '../../examples/images/weights-server.ts';
import { encodeFrame } from '../../shared/frame.ts';
import { run } from '../cli/command.ts';
import { cgiApp } from './cgi-app.ts';
import { brokenRegistry, lyingRegistry } from './faulty-registry.ts';
import { helloFrame, saysToCoordinator } from './raw-link.ts';
import { openStage, whyNotHere, type Stage } from './stage.ts';

const HELLO = join(import.meta.dirname, '../../examples/hello');

// Also when it is run by hand: tap gives a file 30 s.
t.setTimeout(110_000);

t.test('bad input', { skip: await whyNotHere() }, async (t) => {
  const stage = await openStage(t, ['node-a']);
  const { client, mesh } = stage;
  const accepted: string[] = [];
  const hello = await readFile(join(HELLO, 'app.yaml'), 'utf8');
  await stage.deploy(
    hello.replace('dir: .', `dir: ${HELLO}`).replace('keep_alive: 10', 'keep_alive: 600'),
  );

  /** A bad thing happens, is told, and does no harm. */
  const bad = (name: string, happens: (t: Test) => Promise<void>): Promise<unknown> =>
    t.test(name, async (t) => {
      await happens(t);
      const { request_id: id } = await client.queue.submit('demo/hello', { input: { name } });
      accepted.push(id);
      await until('a good request is served', async () => {
        return (await stage.request(id)).status === 'COMPLETED';
      });
      const { data } = await client.queue.result('demo/hello', { requestId: id });
      t.match(data, { greeting: `Hello, ${name}!` }, 'the mesh still serves');
    });
  let files = 0;
  const appFile = async (text: string): Promise<string> => {
    const file = join(stage.folder, `bad-${(files += 1)}.yaml`);
    await writeFile(file, text);
    return file;
  };
  const deployImage = async (image: string, app = 'demo/bad') =>
    stage.cli('deploy', await appFile(JSON.stringify({ app, image })));
  const processApp = (app: string, script: string, more: Record<string, unknown> = {}): string =>
    JSON.stringify({ app, command: ['node', '-e', script], dir: HELLO, ...more });
  const submit = async (app: string): Promise<string> =>
    (await client.queue.submit(app, { input: {} })).request_id;
  const failsToStart = (t: Test, app: string, code: string, words: RegExp) =>
    startFails(stage, t, app, code, words);

  await bad('a malformed app file', async (t) => {
    const cases: [text: string, at: string, words: RegExp][] = [
      [
        'app: demo/x\nimage: a/b\nscaling:\n  max_concurency: 2\n',
        '4:3',
        /scaling\.max_concurency: is not a field/,
      ],
      ['app: demo/x\nimage: [a\n', '3:1', /yaml: /],
      ['app: demo/x\nimage: a/b\nport: 99999\n', '3:1', /port: /],
      ['app: Demo\nimage: a/b\n', '1:1', /app: expected owner\/alias/],
      ['app: demo/x\n', '1:1', /image: name an image, or a command/],
      ['app: demo/x\nimage: a/b\nmachine: { gpus: 9 }\n', '3:12', /machine.gpus/],
    ];
    for (const [text, at, words] of cases) {
      const file = await appFile(text);
      const { code, err } = await stage.cli('deploy', file);
      t.equal(code, 65, err);
      t.ok(err.includes(`INPUT_INVALID: ${file}:${at}: `), err);
      t.match(err, words);
      t.match(err, /next: /);
    }
    const json = await stage.cli('deploy', await appFile('app: 7\n'), '--json');
    t.match(JSON.parse(json.err), { error: { code: 'INPUT_INVALID', field: 'app', exit: 65 } });
    t.equal((await stage.cli('deploy', join(stage.folder, 'none.yaml'))).code, 66);
    const post = async (body: string) => {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(`${mesh.url}/v1/apps`, { method: 'POST', headers, body });
      return { status: response.status, body: await response.json() };
    };
    t.match(await post('{"app":"Demo","image":"a/b"}'), {
      status: 400,
      body: { error: { code: 'INPUT_INVALID', field: 'app' } },
    });
    t.match(await post('{"app":'), { status: 400, body: { error: { code: 'INPUT_INVALID' } } });
    t.match(await post(`{"app":"${'x'.repeat(300_000)}"}`), {
      status: 413,
      body: { error: { code: 'INPUT_TOO_LARGE' } },
    });
  });

  await bad('an image that is not there, or is another', async (t) => {
    const cases: [image: string, exit: number, words: RegExp][] = [
      [
        `${stage.registry}/demo/none:1`,
        66,
        /IMAGE_NOT_FOUND: image: .*\/demo\/none:1.* no such image/,
      ],
      [`${stage.registry}/demo/busybox:9`, 66, /IMAGE_NOT_FOUND: image: .*demo\/busybox:9/],
      [`${stage.registry}/demo/busybox@sha256:${'0'.repeat(64)}`, 66, /IMAGE_NOT_FOUND: image: /],
      ['Not An Image', 65, /IMAGE_REF_INVALID: image: /],
    ];
    for (const [image, exit, words] of cases) {
      const { code, err } = await deployImage(image);
      t.equal(code, exit, err);
      t.match(err, words);
      t.match(err, /next: /);
    }
  });

  await bad('a registry that refuses, fails or talks nonsense', async (t) => {
    const gone = await brokenRegistry(200);
    await gone[Symbol.asyncDispose]();
    const nobody = await deployImage(`${gone.host}/demo/x:1`);
    t.equal(nobody.code, 75, nobody.err);
    t.match(nobody.err, /REGISTRY_UNAVAILABLE: image: .*cannot be reached/);
    const cases: [status: number, exit: number, words: RegExp][] = [
      [401, 1, /REGISTRY_UNAUTHORIZED: image: .*(credentials|password)/],
      [403, 1, /REGISTRY_FORBIDDEN: image: /],
      [404, 66, /IMAGE_NOT_FOUND: image: /],
      [429, 75, /REGISTRY_BUSY: image: /],
      [500, 75, /REGISTRY_UNAVAILABLE: image: .*status 500/],
      [200, 65, /IMAGE_INVALID: image: /],
    ];
    for (const [status, exit, words] of cases) {
      await using registry = await brokenRegistry(status, '<html>', {
        'content-type': 'text/html',
        'www-authenticate': 'Basic realm="here"',
      });
      const { code, err } = await deployImage(`${registry.host}/demo/x:1`);
      t.equal(code, exit, err);
      t.match(err, words);
    }
    const { items } = await stage.get<{ items: { app: string }[] }>('/v1/apps');
    t.strictSame(
      items.map(({ app }) => app),
      ['demo/hello'],
      'none of it is deployed',
    );
  });

  await bad('a registry that serves wrong bytes', async (t) => {
    await using manifests = await lyingRegistry(stage.registry, /\/manifests\//);
    const refused = await deployImage(`${manifests.host}/demo/busybox:1`);
    t.equal(refused.code, 75, refused.err);
    t.match(refused.err, /DIGEST_MISMATCH: image: /);

    await using blobs = await lyingRegistry(stage.registry, /\/blobs\//);
    await stage.deploy(cgiApp({ app: 'bad/bytes', image: `${blobs.host}/demo/busybox:1` }));
    await failsToStart(t, 'bad/bytes', 'DIGEST_MISMATCH', /sha256:/);
    t.strictSame((await stage.node('node-a'))?.images, [], 'no such image here');
  });

  await bad('an app whose process ends at once', async (t) => {
    const script =
      "console.log('loading'); console.error('cannot open model.bin'); process.exit(3)";
    await stage.deploy(processApp('bad/exits', script));
    await failsToStart(t, 'bad/exits', 'RUNNER_EXITED', /exit code 3.*cannot open model\.bin/s);
    const container = { app: 'bad/exits-too', image: stage.image };
    const command = ['/bin/busybox', 'sh', '-c', 'echo no such device; exit 4'];
    await stage.deploy(JSON.stringify({ ...container, command }));
    await failsToStart(t, 'bad/exits-too', 'RUNNER_EXITED', /exit code 4.*no such device/s);
    await stage.deploy(
      JSON.stringify({ ...container, app: 'bad/no-program', command: ['/no/such'] }),
    );
    await failsToStart(t, 'bad/no-program', 'DRIVER_FAILED', /\/no\/such/);
  });

  await bad('a port that nobody listens on', async (t) => {
    const timeouts = { startup_timeout: 2, termination_grace_period_seconds: 0 };
    await stage.deploy(processApp('bad/port', 'setInterval(() => {}, 1000)', { timeouts }));
    await failsToStart(
      t,
      'bad/port',
      'STARTUP_TIMEOUT',
      /not ready within 2000 ms: .*refused|listens/,
    );
  });

  await bad('weights that are wrong, forbidden or not supported', async (t) => {
    const folder = join(stage.folder, 'weights');
    await mkdir(folder);
    await writeFile(join(folder, 'w.bin'), randomBytes(1000));
    const server = await serveWeights(folder);
    t.teardown(() => server.stop());
    const serve = 'setInterval(() => {}, 1000)';
    const weights = (from: string, sha256 = '0'.repeat(64)) => ({
      weights: [{ from, sha256, to: '/data/w.bin' }],
    });
    await stage.deploy(processApp('bad/sha', serve, weights(`${server.url}/w.bin`)));
    await failsToStart(t, 'bad/sha', 'DIGEST_MISMATCH', /weights\.0/);
    await stage.deploy(processApp('bad/private', serve, weights('http://10.255.255.1/w.bin')));
    await failsToStart(t, 'bad/private', 'ORIGIN_FORBIDDEN_ADDRESS', /weights\.0.*10\.255\.255\.1/);
    await stage.deploy(processApp('bad/missing', serve, weights(`${server.url}/none.bin`)));
    await failsToStart(t, 'bad/missing', 'NOT_FOUND', /weights\.0/);
    const hub = processApp('bad/hub', serve, weights('hf://org/model@main'));
    const { code, err } = await stage.cli('deploy', await appFile(hub));
    t.equal(code, 1, err);
    t.match(err, /NOT_SUPPORTED: weights\[0\]\.from: hf:\/\/ weights are not in this version/);
  });

  await bad('a second program on a data folder or a port', async (t) => {
    const env = { PATH: stage.env['PATH'] ?? '' };
    const data = (name: string): string => join(stage.folder, name);
    const address = mesh.url.replace('http://', '');
    const ws = mesh.url.replace('http', 'ws');
    const nowhere = ['--listen', '127.0.0.1:0', '--data'];
    const [coordinator, agent, port] = await Promise.all([
      run(['coordinator', ...nowhere, data('coordinator')], { env }),
      run(['agent', '--coordinator', ws, ...nowhere, data('node-a')], { env }),
      run(['coordinator', '--listen', address, '--data', data('other')], { env }),
    ]);
    t.equal(coordinator.code, 71, coordinator.err);
    t.match(coordinator.err, /STORE_LOCKED: .*coordinator/);
    t.equal(agent.code, 71, agent.err);
    t.match(agent.err, /STORE_LOCKED: .*node-a is in use by process \d+/);
    t.equal(port.code, 71, port.err);
    t.match(port.err, /EADDRINUSE[^]*Another program listens there/);
  });

  await bad('an agent of another protocol version', async (t) => {
    const end = await saysToCoordinator(mesh.url, [helloFrame({ protocol: { min: 7, max: 9 } })]);
    t.match(end, {
      close: 4406,
      code: 'PROTOCOL_UNSUPPORTED',
      message: /1\.\.1, the agent 7\.\.9/,
    });
  });

  await bad('frames that are too large or malformed', async (t) => {
    const deep = Buffer.concat([Buffer.alloc(100, 0x91), Buffer.from([0xc0])]);
    const cases: Record<string, [frames: (Uint8Array | string)[], close: number, words: RegExp]> = {
      text: [['hello'], 1007, /text/],
      garbage: [[Buffer.from([0xc1])], 1007, /frame/],
      'cut short': [[helloFrame().subarray(0, 40)], 1007, /middle|early|declares/],
      'more behind it': [
        [Buffer.concat([helloFrame(), Buffer.from([1])])],
        1007,
        /after its value/,
      ],
      'too deep': [[deep], 1007, /deeper/],
      'an extension type': [[Buffer.from([0xd4, 1, 1])], 1007, /extension/],
      'no message': [[Buffer.from([0x93, 1, 2, 3])], 1007, /\[name, body\]/],
      'no hello': [[encodeFrame('heartbeat', { sequence: 1, echo: 0 })], 1007, /first message/],
      'a field of the wrong type': [[helloFrame({ labels: 7 })], 1007, /hello\.labels/],
      'a second hello': [[helloFrame(), helloFrame()], 1007, /second hello/],
      'a wrong field later': [
        [helloFrame(), encodeFrame('heartbeat', { sequence: -1, echo: 0 })],
        1007,
        /heartbeat\.sequence/,
      ],
    };
    for (const [name, [frames, close, words]] of Object.entries(cases)) {
      const end = await saysToCoordinator(mesh.url, frames);
      t.match(end, { close, code: 'FRAME_INVALID', message: words }, name);
    }
    for (const frames of [[Buffer.alloc(2 ** 20 + 1)], [helloFrame(), Buffer.alloc(2 ** 21)]]) {
      const end = await saysToCoordinator(mesh.url, frames);
      t.ok([1006, 1009].includes(end.close), `a frame over the limit ends with ${end.close}`);
    }
    const told = await readFile(mesh.coordinator.log, 'utf8');
    t.match(
      told,
      /"code":"FRAME_TOO_LARGE","reason":"a frame is over 1048576 bytes".*link\.refused/,
    );
    t.match(await stage.node('node-a'), { state: 'ready' });
    const [agent] = mesh.agents;
    t.notMatch(
      await readFile(agent?.log ?? '', 'utf8'),
      /agent\.unlinked/,
      'our agent felt nothing',
    );
  });

  await bad('a wrong token', async (t) => {
    const folder = join(stage.folder, 'guarded');
    const token = 'a-token-of-this-test';
    const guarded = await startProgram({
      name: 'guarded',
      args: ['coordinator', '--listen', '127.0.0.1:0', '--data', join(folder, 'data')],
      folder,
      env: { ...stage.env, RUNMESH_TOKEN: token },
    });
    t.teardown(() => guarded.stop());
    const logOf = (program: { log: string }): Promise<string> => readFile(program.log, 'utf8');
    const urlOf = async (): Promise<string> =>
      /"url":"([^"]+)","epoch"/.exec(await logOf(guarded))?.[1] ?? '';
    await until('the guarded coordinator listens', async () => (await urlOf()) !== '');
    const url = await urlOf();
    const agentWith = async (name: string, secret: string) => {
      const links = ['--coordinator', url.replace('http', 'ws'), '--listen', '127.0.0.1:0'];
      const args = ['agent', ...links, '--data', join(folder, name), '--name', name];
      const env = { ...stage.env, RUNMESH_TOKEN: secret };
      const program = await startProgram({ name, args, folder, env });
      t.teardown(() => program.stop());
      return program;
    };
    const [wrong, right] = await Promise.all([
      agentWith('wrong', 'another-token-altogether'),
      agentWith('right', token),
    ]);
    await until('one is refused', async () => /UNAUTHORIZED/.test(await logOf(wrong)));
    t.match(await logOf(wrong), /the token of the agent is not the one of this coordinator/);
    await until('the refusal is logged', async () =>
      /"code":"UNAUTHORIZED".*"event":"link.refused"/.test(await logOf(guarded)),
    );
    t.notMatch(await logOf(guarded), new RegExp(token), 'no secret is logged');
    await until('the other is linked', async () => /agent\.linked/.test(await logOf(right)));
    const nodes = (env: Record<string, string>) => run(['nodes', '--json'], { url, env });
    const [none, other, good] = await Promise.all([
      nodes({}),
      nodes({ RUNMESH_KEY: 'wrong' }),
      nodes({ RUNMESH_KEY: token }),
    ]);
    t.equal(none.code, 77, none.err);
    t.equal(other.code, 77, other.err);
    t.match(other.err, /UNAUTHORIZED/);
    t.match(JSON.parse(good.out), [{ name: 'right', state: 'ready' }]);
    for (const program of [wrong, right, guarded]) await program.stop();
    t.strictSame(
      [wrong, right, guarded].map((program) => program.process.exitCode),
      [0, 0, 0],
    );
  });

  await bad('requests that cannot be accepted', async (t) => {
    const post = async (path: string, headers: Record<string, string> = {}) => {
      const response = await fetch(`${mesh.url}${path}`, { method: 'POST', body: '{}', headers });
      t.ok(response.headers.get('x-fal-request-id'), 'every answer carries an id');
      return { status: response.status, body: await response.json() };
    };
    for (const path of ['/queue/no/app', '/run/no/app'])
      t.match(await post(path), {
        status: 404,
        body: { detail: 'Application "no/app" not found' },
      });
    const cli = await stage.cli('run', 'no/app');
    t.equal(cli.code, 66, cli.err);
    const unknown = '01a20188-2bbd-7860-801c-751d45c83381';
    const status = await fetch(`${mesh.url}/queue/demo/hello/requests/${unknown}/status`);
    t.equal(status.status, 404);
    t.match(await status.json(), { status: 'NOT_FOUND' });
    t.equal((await stage.cli('requests', unknown)).code, 66);

    t.match(await post('/queue/demo/hello?fal_webhook=https://example.com/hook'), {
      status: 400,
      body: { detail: /^fal_webhook: webhooks are not in this version/, error_type: 'bad_request' },
    });
    const webhook = { input: {}, webhookUrl: 'https://example.com/hook' };
    const thrown: unknown = await client.queue
      .submit('demo/hello', webhook)
      .catch((e: unknown) => e);
    t.ok(thrown instanceof ApiError && thrown.status === 400);
    const headers = { 'x-fal-queue-priority': 'urgent', 'x-fal-request-timeout': 'soon' };
    for (const [name, value] of Object.entries(headers))
      t.match(await post('/queue/demo/hello', { [name]: value }), {
        status: 400,
        body: { detail: new RegExp(`^${name}: expected`) },
      });
    for (const path of ['/queue/demo/hello', '/run/demo/hello']) {
      const answer = await declares(`${mesh.url}${path}`, 2 ** 29 + 1);
      t.equal(answer.statusCode, 413, `${path}: a body over the limit`);
    }
    const { items } = await stage.get<{ items: { id: string }[] }>('/v1/requests?app=demo/hello');
    t.strictSame(items.map(({ id }) => id).sort(), [...accepted].sort(), 'none of it is queued');
  });

  await t.test('nothing was lost, nothing is left', async (t) => {
    t.ok(accepted.length > 8);
    for (const id of accepted) t.match(await stage.request(id), { httpStatus: 200, attempts: 1 });
    await stage.deploy(cgiApp({ app: 'demo/cgi', image: stage.image }));
    const { data } = await client.subscribe('demo/cgi/cgi-bin/echo', { input: { a: 1 } });
    t.match(data, { input: { a: 1 } }, 'the image that was served wrong is fine from its registry');
    t.equal(mesh.coordinator.process.exitCode, null, 'one coordinator, all the time');
    await mesh.stop();
    t.strictSame(stage.leftovers(), []);
  });

  /** The start of a runner fails, visibly; its request waits and says why; cancelled, it is out of the way. */
  async function startFails(
    { runnersWhen, cli, request, get }: Stage,
    t: Test,
    app: string,
    code: string,
    words: RegExp,
  ): Promise<void> {
    const id = await submit(app);
    const runners = await runnersWhen(app, 'a start failed', (all) =>
      all.some(({ failure }) => failure),
    );
    const failed = runners.find(({ failure }) => failure);
    t.equal(failed?.failure?.code, code, app);
    t.match(failed?.failure?.message, words);
    const listed = await cli('runners', '--all', '--app', app);
    t.equal(listed.code, 0);
    t.match(listed.out, new RegExp(`TERMINATED.*${code}`));
    await until('the request waits for the delay', async () => {
      return (await request(id)).waiting?.code === 'failure_delay';
    });
    const { status, attempts, waiting } = await request(id);
    t.match({ status, attempts }, { status: 'IN_QUEUE', attempts: 0 });
    const delayMs = (waiting?.until ?? 0) - Date.now();
    // 30 s for each start that failed in a row: one, unless this took so long that the next was tried too.
    const { failures } = await get<{ failures: number }>(`/v1/apps/${app}`);
    const longestMs = 30_000 * failures;
    t.ok(delayMs > longestMs - 20_000 && delayMs <= longestMs, `${delayMs} ms after ${failures}`);
    t.match((await cli('requests', id)).out, /why it waits: .*failure_delay/);
    await client.queue.cancel(app, { requestId: id });
    t.match(await request(id), { status: 'COMPLETED', httpStatus: 499 });
  }
});

/** What is answered to a body of a size, before any of it is sent. */
async function declares(url: string, sizeBytes: number): Promise<IncomingMessage> {
  const headers = { 'content-length': sizeBytes };
  const request = httpRequest(url, { method: 'POST', headers });
  request.on('error', () => undefined);
  request.flushHeaders();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  response.resume();
  request.destroy();
  return response;
}
