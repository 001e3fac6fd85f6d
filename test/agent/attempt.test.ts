// Queued attempts over real sockets: executed once, refused when there is no room, ended with the code of what happened,
// and their results kept until acknowledged (A1).
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { assignment, bench, bodyText, startOrder, until } from '../fakes/agent-bench.ts';
import type { RequestListener } from 'node:http';

/** Healthy; the path says what it does with a request. */
const app: RequestListener = (request, response) => {
  const [path] = (request.url ?? '').split('?');
  if (path === '/health') return void response.end();
  if (path === '/hang') return void request.resume();
  if (path === '/broken') {
    response.writeHead(200, { 'content-length': '100' });
    return void response.write('half', () => request.socket.destroy());
  }
  if (path === '/reset') return void request.socket.destroy();
  if (path === '/headers') {
    for (let at = 0; at < 20; at += 1) response.setHeader(`x-${at}`, 'y'.repeat(1_000));
    return void response.end();
  }
  if (path === '/many') {
    const headers = Array.from({ length: 600 }, (_, at) => [`x-${at}`, 'y']).flat();
    return void response.writeHead(200, headers).end(Buffer.alloc(200_000, 7));
  }
  if (path === '/large') return void response.end(Buffer.alloc(200_000, 7));
  if (path === '/hop') {
    response.writeHead(
      207,
      [
        ['set-cookie', 'a=1'],
        ['set-cookie', 'b=2'],
        ['connection', 'keep-alive, x-private'],
        ['x-private', '1'],
        ['x-runmesh-refused', 'SLOTS_FULL'],
      ].flat(),
    );
    return void response.end(JSON.stringify(request.rawHeaders));
  }
  response.setHeader('x-path', request.url ?? '');
  request.pipe(response);
};

t.test('an attempt is started, called and finished; the ack empties the outbox', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready();
  const assign = assignment(runnerId);
  b.fake.send('assign', assign);
  t.equal((await b.fake.next('started')).token, assign.token);
  const finished = await b.fake.next('finished');
  t.equal(finished.token, assign.token);
  t.match(finished.outcome, { kind: 'response', status: 200 });
  t.equal(bodyText(finished), '{"a":1}');
  t.match(
    finished.outcome.kind === 'response' && new Map(finished.outcome.headers).get('x-path'),
    '/predict?x=1',
    'path and query reach the app',
  );
  const running = b.fake.next('runner', ({ state }) => state === 'RUNNING');
  await running;
  await b.fake.next('runner', ({ state }) => state === 'IDLE');
  await until(async () => (await readdir(join(b.data, 'outbox'))).length === 0, 'outbox empty');
});

t.test('headers of one connection and of ours are not passed on, doubles are', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready();
  const headers: [string, string][] = [
    ['X-Kept', 'yes'],
    ['connection', 'x-dropped'],
    ['x-dropped', '1'],
    ['x-runmesh-lease', 'secret'],
    ['transfer-encoding', 'chunked'],
  ];
  b.fake.send('assign', assignment(runnerId, { path: '/hop', headers }));
  const { outcome } = await b.fake.next('finished');
  if (outcome.kind !== 'response') return void t.fail(JSON.stringify(outcome));
  t.equal(outcome.status, 207);
  const names = outcome.headers.map(([name]) => name.toLowerCase());
  t.equal(names.filter((name) => name === 'set-cookie').length, 2);
  t.notOk(names.includes('x-private') || names.includes('x-runmesh-refused'));
  const sent = outcome.body.kind === 'inline' ? Buffer.from(outcome.body.bytes).toString() : '';
  t.match(sent, 'X-Kept');
  t.notMatch(sent, /x-dropped|x-runmesh-lease|chunked/);
});

t.test('what goes wrong has its code', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready({ slots: 10 });
  const ends: [string, string, number][] = [
    ['/hang', 'REQUEST_TIMEOUT', 100],
    ['/broken', 'RUNNER_INCOMPLETE', 5_000],
    ['/reset', 'RUNNER_CONNECTION', 5_000],
    ['/headers', 'RUNNER_RESPONSE_TOO_LARGE', 5_000],
    ['/many', 'RUNNER_RESPONSE_TOO_LARGE', 5_000],
  ];
  for (const [path, code, timeoutMs] of ends) {
    b.fake.send('assign', assignment(runnerId, { path, timeoutMs }));
    const { outcome } = await b.fake.next('finished');
    t.match(outcome, { kind: 'failed', code }, path);
  }
  await until(async () => (await readdir(join(b.data, 'outbox'))).length === 0, 'no body is left');
  t.equal(b.agent.nodeId, b.fake.hellos[0]?.nodeId);
});

t.test('slots: full, gone, draining', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready({ slots: 2 });
  const hanging = [1, 2].map(() => assignment(runnerId, { path: '/hang' }));
  for (const assign of hanging) b.fake.send('assign', assign);
  await b.fake.next('started');
  await b.fake.next('started');
  b.fake.send('assign', assignment(runnerId));
  t.match(await b.fake.next('refused'), { failure: { code: 'SLOTS_FULL' } });
  b.fake.send('assign', assignment(startOrder().runnerId));
  t.match(await b.fake.next('refused'), { failure: { code: 'RUNNER_GONE' } });
  b.fake.send('stopRunner', { runnerId, how: 'drain' });
  await b.fake.next('runner', ({ state }) => state === 'DRAINING');
  b.fake.send('assign', assignment(runnerId));
  t.match(await b.fake.next('refused'), { failure: { code: 'RUNNER_GONE' } });
  for (const { token } of hanging) b.fake.send('revoke', { token });
  await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.equal(
    b.fake.heard.filter(({ name }) => name === 'finished').length,
    0,
    'revoked: nothing said',
  );
});

t.test('the same assign twice runs once, also when it is finished (T1)', async (t) => {
  let calls = 0;
  const counting: RequestListener = (request, response) => {
    if (request.url !== '/health') calls += 1;
    setTimeout(() => response.end('once'), request.url === '/health' ? 0 : 50);
  };
  await using b = await bench({ app: () => counting, fake: { acks: false } });
  const assign = assignment(await b.ready());
  b.fake.send('assign', assign);
  b.fake.send('assign', assign);
  await b.fake.next('started');
  await b.fake.next('started');
  await b.fake.next('finished');
  b.fake.send('assign', assign);
  t.equal(bodyText(await b.fake.next('finished')), 'once');
  t.equal(calls, 1);
});

t.test('a runner that dies in the middle ends its attempts', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready();
  b.fake.send('assign', assignment(runnerId, { path: '/hang' }));
  await b.fake.next('started');
  b.driver.runners.get(runnerId)?.print('out of luck\n');
  b.driver.runners.get(runnerId)?.crash({ kind: 'signal', signal: 'SIGSEGV' });
  t.match((await b.fake.next('finished')).outcome, { kind: 'failed', code: 'RUNNER_DISCONNECTED' });
  const report = await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.match(report, {
    exit: { kind: 'signal', signal: 'SIGSEGV' },
    failure: { code: 'RUNNER_EXITED' },
  });
  t.match(report.failure?.message, 'out of luck');
});

t.test('a runner that dies before its input came ends the attempt', async (t) => {
  await using b = await bench({ app: () => app, fake: { hangsPayloads: true } });
  const runnerId = await b.ready();
  const input = b.fake.payload(randomBytes(20_000));
  b.fake.send('assign', assignment(runnerId, { input }));
  await b.fake.next('started');
  b.driver.runners.get(runnerId)?.crash({ kind: 'oom' });
  const { outcome } = await b.fake.next('finished');
  t.match(outcome, { kind: 'failed', code: 'RUNNER_DISCONNECTED', message: /memory/ });
});

t.test('cancel calls {path}/cancel; the app says how it ends', async (t) => {
  const cancels: string[] = [];
  let finish = (): void => undefined;
  const cancellable: RequestListener = (request, response) => {
    if (request.url === '/health') return void response.end();
    if (request.url?.endsWith('/cancel')) {
      cancels.push(`${request.method} ${request.url} ${request.headers['x-fal-request-id']}`);
      finish();
      return void response.writeHead(404).end();
    }
    finish = () => void response.writeHead(499).end('cancelled');
  };
  await using b = await bench({ app: () => cancellable });
  const assign = assignment(await b.ready(), { path: '/work?seed=1' });
  b.fake.send('assign', assign);
  await b.fake.next('started');
  await until(() => b.driver.runners.size === 1, 'runner');
  await new Promise((resolve) => setTimeout(resolve, 50));
  b.fake.send('cancel', { token: assign.token });
  b.fake.send('cancel', { token: assign.token });
  t.match((await b.fake.next('finished')).outcome, { kind: 'response', status: 499 });
  t.strictSame(cancels, [`POST /work/cancel ${assign.requestId}`]);
});

t.test('large inputs and results go over HTTP, verified both ways', async (t) => {
  await using b = await bench({ app: () => app });
  const runnerId = await b.ready({ slots: 4 });
  const bytes = randomBytes(300_000);
  const assign = assignment(runnerId, { input: b.fake.payload(bytes) });
  b.fake.resultRefusals.push(503);
  b.fake.send('assign', assign);
  const { outcome } = await b.fake.next('finished');
  if (outcome.kind !== 'response') return void t.fail(JSON.stringify(outcome));
  t.strictSame(outcome.body, assign.input, 'the echo has the digest of the input');
  t.ok(b.fake.results.get(assign.token)?.equals(bytes), 'after a 503 it was put again');
  t.ok(b.fake.authorizations.every((value) => value === `Bearer ${assign.token}`));
  await until(async () => (await readdir(join(b.data, 'outbox'))).length === 0, 'body removed');

  const lie = b.fake.payload(Buffer.from('the truth'));
  for (const [hex] of b.fake.payloads) b.fake.payloads.set(hex, Buffer.from('a lie !!!'));
  b.fake.send('assign', assignment(runnerId, { input: lie }));
  t.match((await b.fake.next('finished')).outcome, { kind: 'failed', code: 'DIGEST_MISMATCH' });
  b.fake.payloads.clear();
  b.fake.send('assign', assignment(runnerId, { input: lie }));
  t.match((await b.fake.next('finished')).outcome, { kind: 'failed', code: 'NOT_FOUND' });
});

t.test('a result outlives the link and the agent, and is delivered once more (A1)', async (t) => {
  await using b = await bench({ app: () => app, fake: { acks: false } });
  const small = assignment(await b.ready({ slots: 2 }));
  const large = assignment(small.runnerId, { path: '/large' });
  b.fake.send('assign', small);
  b.fake.send('assign', large);
  await b.fake.next('finished');
  await b.fake.next('finished');
  b.fake.drop();
  await until(() => b.fake.hellos.length === 2, 'linked again');
  const known = b.fake.hellos[1]?.attempts ?? [];
  t.strictSame(
    new Set(known.map(({ token, phase }) => `${phase} ${token}`)),
    new Set([small, large].map(({ token }) => `finished ${token}`)),
  );
  await b.fake.next('finished');
  await b.fake.next('finished');
  await b.agent.stop();
  b.fake.results.clear();
  await b.again();
  const again = [await b.fake.next('finished'), await b.fake.next('finished')];
  t.strictSame(new Set(again.map(({ token }) => token)), new Set([small.token, large.token]));
  t.equal(b.fake.results.get(large.token)?.byteLength, 200_000);
  for (const finished of again)
    if (finished.token === small.token) t.equal(bodyText(finished), '{"a":1}');
  for (const { token } of again) b.fake.send('ack', { token });
  await until(async () => (await readdir(join(b.data, 'outbox'))).length === 0, 'forgotten');
  b.fake.drop();
  await until(() => b.fake.hellos.length === 4, 'linked again');
  t.strictSame(b.fake.hellos[3]?.attempts, []);
});

t.test('an attempt runs on while the link is away', async (t) => {
  let release = (): void => undefined;
  const slow: RequestListener = (request, response) => {
    if (request.url === '/health') return void response.end();
    release = () => void response.end('late');
  };
  await using b = await bench({ app: () => slow });
  const assign = assignment(await b.ready());
  b.fake.send('assign', assign);
  await b.fake.next('started');
  b.fake.drop();
  await until(() => b.fake.hellos.length === 2, 'linked again');
  t.strictSame(b.fake.hellos[1]?.attempts, [{ token: assign.token, phase: 'running' }]);
  t.match(b.fake.hellos[1]?.runners, [{ state: 'RUNNING', runnerId: assign.runnerId }]);
  release();
  t.equal(bodyText(await b.fake.next('finished')), 'late');
});

t.test('a welcome may revoke what ran meanwhile', async (t) => {
  await using b = await bench({ app: () => app });
  const assign = assignment(await b.ready(), { path: '/hang' });
  b.fake.send('assign', assign);
  await b.fake.next('started');
  b.fake.options.revoke = [assign.token];
  b.fake.drop();
  await until(() => b.fake.hellos.length === 2, 'linked again');
  b.fake.send('assign', assignment(assign.runnerId));
  await b.fake.next('finished');
  t.equal(b.fake.heard.filter(({ name }) => name === 'refused').length, 0, 'the slot is free');
});

t.test('a stopping agent breaks off with NODE_DRAINING and says goodbye', async (t) => {
  await using b = await bench({ app: () => app });
  b.fake.send('assign', assignment(await b.ready(), { path: '/hang' }));
  await b.fake.next('started');
  await b.agent.stop();
  t.match((await b.fake.next('finished')).outcome, { kind: 'failed', code: 'NODE_DRAINING' });
  await b.fake.next('runner', ({ state }) => state === 'TERMINATED');
  t.equal((await b.fake.next('goodbye')).code, 'SHUTTING_DOWN');
  t.equal(b.driver.runners.size, 0);
});

t.test('a disk that refuses loses nothing, and stops new work (O2)', async (t) => {
  await using b = await bench({ app: () => app, fake: { acks: false } });
  const runnerId = await b.ready({ slots: 2 });
  const folder = join(b.data, 'outbox');
  await rm(folder, { recursive: true });
  await writeFile(folder, 'in the way');
  const assign = assignment(runnerId);
  b.fake.send('assign', assign);
  t.equal(bodyText(await b.fake.next('finished')), '{"a":1}', 'the result is told from memory');
  await b.fake.next('started');
  // Not acknowledged, so it is to be written, which fails.
  await new Promise((resolve) => setTimeout(resolve, 500));
  b.fake.send('assign', assignment(runnerId));
  t.match(await b.fake.next('refused'), { failure: { code: 'DISK_FULL' } });
  await rm(folder);
  await mkdir(folder);
  await until(async () => (await readdir(folder)).length === 1, 'it is written in the end');
  b.fake.send('ack', { token: assign.token });
  await until(async () => (await readdir(folder)).length === 0, 'and forgotten');
  b.fake.send('assign', assignment(runnerId));
  await b.fake.next('finished');
});

t.test(
  'what a crash left in the outbox: rubbish goes, what is unreadable is set aside',
  async (t) => {
    await using b = await bench({ app: () => app, fake: { acks: false } });
    const assign = assignment(await b.ready(), { path: '/large' });
    b.fake.send('assign', assign);
    await b.fake.next('finished');
    await b.agent.stop();
    const folder = join(b.data, 'outbox');
    const [body = '', record = ''] = (await readdir(folder)).sort();
    t.match([body, record], [/^[0-9a-f]{64}\.body$/, /^[0-9a-f]{64}\.json$/]);
    await writeFile(join(folder, `${'0'.repeat(64)}.body`), 'no record');
    await writeFile(join(folder, `${'1'.repeat(64)}.json.new`), '{');
    await writeFile(join(folder, `${'2'.repeat(64)}.json`), '{');
    await b.again();
    await b.fake.next('finished');
    t.strictSame(
      (await readdir(folder)).sort(),
      [`${'2'.repeat(64)}.json.unreadable`, body, record].sort(),
    );
  },
);

t.test('a large result whose bytes are lost or changed ends its attempt, once', async (t) => {
  await using b = await bench({ app: () => app, fake: { acks: false } });
  const runnerId = await b.ready({ slots: 2 });
  const [lost, changed] = [0, 1].map(() => assignment(runnerId, { path: '/large' }));
  for (const assign of [lost, changed]) {
    if (assign) b.fake.send('assign', assign);
    await b.fake.next('finished');
  }
  await b.agent.stop();
  const folder = join(b.data, 'outbox');
  const body = (token = ''): string =>
    join(folder, `${createHash('sha256').update(token).digest('hex')}.body`);
  await rm(body(lost?.token));
  await writeFile(body(changed?.token), Buffer.alloc(200_000, 8));
  await b.again();
  const { token, outcome } = await b.fake.next('finished');
  t.equal(token, changed?.token);
  t.match(outcome, { kind: 'failed', code: 'RUNNER_INCOMPLETE' });
  const hello = b.fake.hellos.at(-1);
  t.strictSame(
    hello?.attempts.map(({ token }) => token),
    [changed?.token],
    'one without its bytes is no result: the attempt runs again',
  );
});
