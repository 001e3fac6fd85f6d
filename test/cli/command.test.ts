// The command as scripts and people meet it: exit codes, what is on stdout and what on stderr, --json, Ctrl-C.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  appView,
  deployed as deployedView,
  nodeView,
  requestView,
  revisionView,
  runnerView,
} from '../../coordinator/api/views.ts';
import { exits } from '../../cli/exit-codes.ts';
import { digestOf, hexOf } from '../../shared/digest.ts';
import { run, runHere, start, startPeer, type Answer } from './command.ts';
import * as shape from './shapes.ts';

const { ID, RUNNER } = shape;
const items = (...list: unknown[]): Answer => ({ json: { items: list } });
const QUEUE = `/queue/acme/hello/requests/${ID}`;

/** A port on which nobody listens. */
async function deadUrl(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

t.test('the shapes of these tests are those of the coordinator', async (t) => {
  t.ok(appView.safeParse(shape.app).success);
  t.ok(revisionView.safeParse(shape.revision).success);
  t.ok(runnerView.safeParse(shape.runner).success);
  t.ok(nodeView.safeParse(shape.node).success);
  t.ok(deployedView.safeParse(shape.deployed).success);
  for (const view of [shape.queued, shape.running, shape.done, shape.cancelled])
    t.ok(requestView.safeParse(view).success);
});

t.test('help and version', async (t) => {
  const golden = new URL('../golden/cli-help.txt', import.meta.url);
  const commands = [
    'dev',
    'coordinator',
    'agent',
    'deploy',
    'run',
    'apps',
    'runners',
    'nodes',
    'requests',
    'logs',
  ];
  const asked = [
    [],
    ...commands.map((name) => [name]),
    ['apps', 'revisions'],
    ['runners', 'stop'],
  ].map((words) => [...words, '--help']);
  const texts: string[] = [];
  for (const args of asked) {
    const { code, out, err } = await runHere(args);
    t.equal(code, 0, args.join(' '));
    t.equal(err, '');
    texts.push(`$ runmesh ${args.join(' ')}\n${out}`);
  }
  const text = texts.join('\n');
  if (process.env['UPDATE_GOLDEN']) await writeFile(golden, text);
  t.equal(text, await readFile(golden, 'utf8'), 'as in test/golden/cli-help.txt');
  const version = await run(['--version']);
  t.match(version.out, /^\d+\.\d+\.\d+\n$/);
  t.equal(version.code, 0);
});

t.test('the README has every exit code', async (t) => {
  const readme = await readFile(new URL('../../cli/README.md', import.meta.url), 'utf8');
  for (const { code } of Object.values(exits))
    t.match(readme, new RegExp(`^\\| ${code} +\\|`, 'm'));
});

t.test('usage errors end with 2 and say where to look', async (t) => {
  const wrong: [string[], RegExp][] = [
    [['app'], /unknown command 'app'[^]*Did you mean apps/],
    [['apps', '--jsn'], /unknown option '--jsn'/],
    [['run'], /missing required argument 'app'/],
    [['run', 'Acme'], /Acme is not owner\/alias/],
    [['run', 'acme/hello', '--priority', 'high'], /Allowed choices are normal, low/],
    [['run', 'acme/hello', '--start-timeout', 'soon'], /Expected seconds/],
    [['run', 'acme/hello', '--direct', '--no-wait'], /--no-wait needs the queue/],
    [['requests', '--limit', '0'], /whole number/],
    [['dev', '--listen', '0.0.0.0:8800'], /beyond loopback/],
  ];
  for (const [args, text] of wrong) {
    const { code, out, err } = await runHere(args);
    t.equal(code, 2, args.join(' '));
    t.equal(out, '');
    t.match(err, text);
  }
  const { code, err } = await run(['apps'], { url: 'ftp://nowhere' });
  t.equal(code, 2);
  t.match(err, /RUNMESH_URL: ftp:\/\/nowhere is not a URL/);
});

t.test('nobody there, or somebody else: 69, 76', async (t) => {
  const url = await deadUrl();
  const gone = await run(['nodes'], { url });
  t.equal(gone.code, 69);
  t.match(gone.err, `no coordinator answers at ${url}: nobody listens there`);
  t.match(gone.err, 'runmesh dev');
  const json = await runHere(['nodes', '--json'], { url });
  t.match(JSON.parse(json.err), { error: { code: 'UNAVAILABLE', exit: 69, doc: String } });
  await using peer = await startPeer({
    'GET /v1/apps': { headers: { 'content-type': 'text/html' }, body: '<h1>hello</h1>' },
    'GET /v1/nodes': { json: [] },
  });
  for (const name of ['apps', 'nodes']) {
    const other = await runHere([name], { url: peer.url });
    t.equal(other.code, 76, name);
    t.match(other.err, /does not answer like a coordinator/);
  }
});

t.test('refusals: code, message, field and what to do; the key is sent', async (t) => {
  const refusal = (status: number, code: string, doc: string, field?: string): Answer => ({
    status,
    json: { error: { code, message: `no ${code}`, doc, field } },
  });
  await using peer = await startPeer({
    'GET /v1/apps': refusal(401, 'UNAUTHORIZED', 'Check RUNMESH_KEY.'),
    'GET /v1/nodes': refusal(503, 'SHUTTING_DOWN', 'Try again in a moment.'),
    'GET /v1/apps/acme/none': refusal(404, 'NOT_FOUND', 'List what there is.', 'app'),
    'GET /v1/runners': refusal(418, 'FROM_A_LATER_VERSION', 'Do this.'),
  });
  const options = { url: peer.url, env: { RUNMESH_KEY: 'id:secret' } };
  const auth = await run(['apps'], options);
  t.equal(auth.code, 77);
  t.equal(auth.err, 'runmesh: UNAUTHORIZED: no UNAUTHORIZED\n  next: Check RUNMESH_KEY.\n');
  t.equal(peer.calls[0]?.headers.authorization, 'Key id:secret');
  t.equal((await runHere(['nodes'], options)).code, 75);
  const missing = await runHere(['apps', 'acme/none'], options);
  t.equal(missing.code, 66);
  t.match(missing.err, /field: app\n {2}next: List what there is/);
  const later = await runHere(['runners'], options);
  t.equal(later.code, 1);
  t.match(later.err, /FROM_A_LATER_VERSION[^]*Do this/);
});

t.test('listings, for people and as JSON', async (t) => {
  const hostile = { ...shape.node, name: 'gpu\u001b[31m-1\nx', id: 'n0mi9vjk3aabcdefgi' };
  await using peer = await startPeer({
    'GET /v1/apps': items(shape.app),
    'GET /v1/apps/acme/hello': { json: shape.app },
    'GET /v1/apps/acme/hello/revisions': items(shape.revision),
    'GET /v1/runners?app=acme%2Fhello&all=1': items(shape.runner),
    'GET /v1/nodes': items(shape.node, hostile),
    'GET /v1/requests?limit=50': items(shape.queued, shape.done),
    [`GET /v1/requests/${ID}`]: { json: shape.queued },
    [`POST /v1/runners/${RUNNER}/stop`]: { status: 202, json: { status: 'stopping' } },
  });
  const listings: [string[], RegExp][] = [
    [['apps'], /^NAME +REV +RUNNERS[^\n]*\nacme\/hello +3 +1\/2 +2 +1/],
    [['apps', 'acme/hello'], /waiting for: +pulling the image/],
    [['apps', 'revisions', 'acme/hello'], /registry\.example\/hello:1/],
    [['runners', '--app', 'acme/hello', '--all'], /DOCKER_PULL[^\n]*layer 2 of 5 40\/120 MiB/],
    [['nodes'], /gpu-1 +ready +0\/0 +7\.5\/8 +60 GiB\/64 GiB[^\n]*no direct calls: no --advertise/],
    [['requests'], /IN_QUEUE[^\n]*pulling the image[^\n]*\n[^\n]*COMPLETED 200/],
    [['requests', ID], /why it waits: +pulling the image, 40\/120 MiB \(pulling\)/],
  ];
  for (const [args, text] of listings) {
    const { code, out, err } = await runHere(args, { url: peer.url });
    t.equal(code, 0, args.join(' '));
    t.equal(err, '');
    t.match(out, text);
    t.notMatch(out, '\u001b', 'no control character reaches a terminal');
    const json = await runHere([...args, '--json'], { url: peer.url });
    t.equal(json.code, 0);
    t.doesNotThrow(() => JSON.parse(json.out) as unknown);
  }
  const nodes = JSON.parse((await runHere(['nodes', '--json'], { url: peer.url })).out) as unknown;
  t.strictSame(nodes, [shape.node, hostile], 'JSON is what the coordinator said');
  const stopped = await runHere(['runners', 'stop', RUNNER, '--kill'], { url: peer.url });
  t.equal(stopped.code, 0);
  t.equal(peer.calls.at(-1)?.body, '{"how":"kill"}');
});

t.test('deploy', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'runmesh-cli-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'app.yaml');
  let blob: Buffer | undefined;
  let name: string | undefined;
  await using peer = await startPeer({ 'POST /v1/apps': { status: 201, json: shape.deployed } });
  // The digest is not known before: any blob is taken, and looked at afterwards.
  peer.answers.get = (key: string): Answer | undefined =>
    key.startsWith('PUT /v1/blobs/')
      ? (response, call) => {
          name = call.path.slice('/v1/blobs/'.length);
          blob = Buffer.from(call.body, 'latin1');
          response.writeHead(201).end('{}');
        }
      : Map.prototype.get.call(peer.answers, key);
  await writeFile(join(folder, 'server.mjs'), 'listen();\n');
  await writeFile(file, 'app: acme/hello\ncommand: [node, server.mjs]\ndir: .\n');
  const good = await run(['deploy', file, '--app', 'acme/other'], { url: peer.url });
  t.equal(good.code, 0, good.err);
  t.match(good.out, /^acme\/hello revision 3 \(v0mi9vjk3aabcdefgh\) is deployed/);
  t.match(good.out, `POST ${peer.url}/run/acme/hello`);
  t.match(good.err, /warning: secrets: is set, but does nothing/);
  t.ok(blob && blob.byteLength % 512 === 0, 'a tar was uploaded');
  t.equal(name, hexOf(digestOf(blob ?? '')), 'under its own digest');
  const sent = JSON.parse(peer.calls.at(-1)?.body ?? '') as Record<string, unknown>;
  t.match(sent, {
    app: 'acme/other',
    dir_digest: `sha256:${name}`,
    dir_size_bytes: blob?.byteLength,
  });

  const json = await runHere(['deploy', file, '--json'], { url: peer.url });
  t.match(JSON.parse(json.out), {
    revision: shape.deployed.revision,
    url: `${peer.url}/run/acme/hello`,
  });

  await writeFile(file, 'app: acme/hello\nimage: x\nscaling:\n  max_concurency: 3\n');
  const bad = await run(['deploy', file], { url: peer.url });
  t.equal(bad.code, 65);
  t.match(bad.err, `${file}:4:3: scaling.max_concurency: is not a field of an app file`);
  await writeFile(file, 'app: acme/hello\nimage: x\ndir: [\n');
  t.match((await runHere(['deploy', file], { url: peer.url })).err, /app\.yaml:\d+:\d+: yaml:/);
  const none = await runHere(['deploy', join(folder, 'none.yaml')], { url: peer.url });
  t.equal(none.code, 66);
  t.match(none.err, /none\.yaml/);
});

t.test('run waits, tells why, and prints the result alone', async (t) => {
  const views = [shape.queued, shape.queued, shape.running, shape.done];
  await using peer = await startPeer({
    'POST /queue/acme/hello/a/b': { json: shape.submitted },
    [`GET /v1/requests/${ID}`]: (response) =>
      response.end(JSON.stringify(views.length > 1 ? views.shift() : views[0])),
    [`GET /v1/runners/${RUNNER}`]: { json: shape.runner },
    [`GET ${QUEUE}`]: {
      headers: { 'content-type': 'application/json', 'x-fal-served-from': RUNNER },
      body: '{"greeting": "hi"}',
    },
  });
  const folder = await mkdtemp(join(tmpdir(), 'runmesh-cli-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const image = join(folder, 'dot.png');
  await writeFile(image, 'PNG');
  const args = ['run', 'acme/hello/a/b', '--input', '-', '--file', `image_url=${image}`];
  const steering = ['--priority', 'low', '--start-timeout', '9.5'];
  const ended = await run([...args, ...steering], { url: peer.url, stdin: '{"a":1}' });
  t.equal(ended.code, 0, ended.err);
  t.equal(ended.out, '{"greeting": "hi"}\n', 'byte for byte, with a newline');
  const submit = peer.calls[0];
  t.strictSame(JSON.parse(submit?.body ?? ''), { a: 1, image_url: 'data:image/png;base64,UE5H' });
  t.equal(submit?.headers['x-fal-queue-priority'], 'low');
  t.equal(submit?.headers['x-fal-request-timeout'], '9.5');
  t.match(ended.err, `request ${ID}`);
  t.match(ended.err, /in queue, 1 ahead: pulling the image, 40\/120 MiB\n/);
  t.match(ended.err, `running on node gpu-1, runner ${RUNNER}\n`);
  t.equal(ended.err.match(/pulling/g)?.length, 1, 'one line per change');

  const json = await run(['run', 'acme/hello/a/b', '--json'], { url: peer.url });
  t.match(JSON.parse(json.out), {
    request_id: ID,
    ok: true,
    status: 200,
    output: { greeting: 'hi' },
    duration_ms: 1_000,
    runner: RUNNER,
  });
  const left = await run(['run', 'acme/hello/a/b', '--no-wait'], { url: peer.url });
  t.equal(left.out, `${ID}\n`);
  const typo = await run(['run', 'acme/hello/a/b', '--input', '{a:1}'], { url: peer.url });
  t.equal(typo.code, 65);
  t.match(typo.err, /--input: not JSON[^]*Quote it for the shell/);
});

t.test('run ends with 1 when the request failed', async (t) => {
  await using peer = await startPeer({
    'POST /queue/acme/hello': { json: shape.submitted },
    [`GET /v1/requests/${ID}`]: { json: { ...shape.done, httpStatus: 422 } },
    [`GET ${QUEUE}`]: {
      status: 422,
      json: { detail: [{ loc: ['body', 'prompt'], msg: 'missing' }] },
    },
    'POST /run/acme/hello': {
      status: 504,
      headers: { 'content-type': 'application/json', 'x-fal-error-type': 'request_timeout' },
      body: '{"detail":"no answer within 60 s","error_type":"request_timeout"}',
    },
    'POST /queue/acme/none': {
      status: 404,
      json: { detail: 'Application "acme/none" not found', error_type: 'bad_request' },
    },
  });
  const failed = await run(['run', 'acme/hello'], { url: peer.url });
  t.equal(failed.code, 1);
  t.equal(failed.out, '', 'an error is never taken for a result');
  t.match(failed.err, /the app answered HTTP 422: \[\{"loc"[^\n]*missing/);
  t.match(failed.err, `runmesh logs ${RUNNER}`);
  const json = await run(['run', 'acme/hello', '--json'], { url: peer.url });
  t.equal(json.code, 1);
  t.match(JSON.parse(json.out), {
    ok: false,
    status: 422,
    output: { detail: [{ msg: 'missing' }] },
  });
  const direct = await run(['run', 'acme/hello', '--direct'], { url: peer.url });
  t.equal(direct.code, 1);
  t.match(direct.err, /request_timeout: the request ended with HTTP 504: no answer within 60 s/);
  const none = await run(['run', 'acme/none'], { url: peer.url });
  t.equal(none.code, 66);
  t.match(none.err, /Application "acme\/none" not found[^]*runmesh apps/);
});

t.test('run outlives a restart of the coordinator', async (t) => {
  let polls = 0;
  await using peer = await startPeer({
    'POST /queue/acme/hello': { json: shape.submitted },
    [`GET /v1/requests/${ID}`]: (response) => {
      polls += 1;
      if (polls < 4) response.destroy();
      else response.end(JSON.stringify(shape.done));
    },
    [`GET ${QUEUE}`]: { json: { ok: true } },
  });
  const { code, out, err } = await run(['run', 'acme/hello'], { url: peer.url });
  t.equal(code, 0, err);
  t.strictSame(JSON.parse(out), { ok: true });
  t.match(err, /does not answer[^\n]*asking again/);
});

t.test('Ctrl-C asks to cancel; a second one leaves', async (t) => {
  let view: unknown = shape.running;
  await using peer = await startPeer({
    'POST /queue/acme/hello': { json: shape.submitted },
    [`GET /v1/requests/${ID}`]: (response) => response.end(JSON.stringify(view)),
    [`GET /v1/runners/${RUNNER}`]: { json: shape.runner },
    [`PUT ${QUEUE}/cancel`]: (response) => {
      view = shape.cancelled;
      response.writeHead(202).end('{"status":"CANCELLATION_REQUESTED"}');
    },
  });
  const first = start(['run', 'acme/hello'], { url: peer.url });
  await first.said('running on node');
  first.child.kill('SIGINT');
  const ended = await first.ended;
  t.equal(ended.code, 130);
  t.equal(ended.out, '');
  t.match(ended.err, /asked to cancel[^]*cancelled/);
  t.ok(peer.calls.some((call) => call.method === 'PUT'));

  view = shape.running;
  peer.answers.set(`PUT ${QUEUE}/cancel`, () => undefined);
  const second = start(['run', 'acme/hello'], { url: peer.url });
  await second.said('running on node');
  second.child.kill('SIGINT');
  await second.said('asked to cancel');
  second.child.kill('SIGINT');
  t.equal((await second.ended).code, 130);
  t.match((await second.ended).err, `left; it goes on: runmesh requests ${ID}`);
});

t.test('logs', async (t) => {
  const text = 'one\ntwo\nthree\n';
  const log = { headers: { 'content-type': 'text/plain' }, body: text };
  const older = { ...shape.runner, id: 'r0mi9vjk39aaaaaaaa' };
  await using peer = await startPeer({
    'GET /v1/runners?app=acme%2Fhello': items(older, shape.runner),
    'GET /v1/runners?app=acme%2Fidle': items(),
    'GET /v1/runners?app=acme%2Fidle&all=1': items(),
    'GET /v1/apps/acme/idle': { json: shape.app },
    [`GET /v1/runners/${RUNNER}/logs?offset=0`]: log,
    [`GET /v1/runners/${RUNNER}/logs?offset=0&follow=1`]: (response) => {
      response.write(text);
      response.write('fo');
      response.flushHeaders();
      peer.server.once('finish-log', () => response.end('ur\nfive'));
    },
  });
  t.equal(
    (await runHere(['logs', 'acme/hello'], { url: peer.url })).out,
    text,
    'the newest runner',
  );
  t.equal((await runHere(['logs', RUNNER, '-n', '2'], { url: peer.url })).out, 'two\nthree\n');
  const follow = start(['logs', RUNNER, '-f', '-n', '1'], { url: peer.url });
  await new Promise<void>((resolve) => follow.child.stdout?.once('data', () => resolve()));
  peer.server.emit('finish-log');
  t.equal((await follow.ended).out, 'three\nfour\nfive');
  const idle = await runHere(['logs', 'acme/idle'], { url: peer.url });
  t.equal(idle.code, 66);
  t.match(idle.err, /has no runner[^]*runmesh run acme\/idle/);
});

t.test('coordinator and agent: settings are checked and shown', async (t) => {
  const bad = await runHere(['coordinator', '--listen', '0.0.0.0:8800']);
  t.equal(bad.code, 78);
  t.match(bad.err, /CONFIG_INVALID[^]*token/);
  const shown = await runHere(
    ['agent', '--coordinator', 'ws://127.0.0.1:1', '--label', 'a=b', '--print-config'],
    {
      env: { RUNMESH_TOKEN: 'a-secret-of-the-test' },
    },
  );
  t.equal(shown.code, 0, shown.err);
  t.match(shown.out, /labels: \{"a":"b"\}/);
  t.match(shown.out, 'token: (redacted)');
  t.notMatch(shown.out, 'a-secret');
  const missing = await runHere(['agent']);
  t.equal(missing.code, 78);
  t.match(missing.err, /coordinator: is required/);
});
