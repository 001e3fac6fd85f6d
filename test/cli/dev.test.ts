// `runmesh dev` for real: a coordinator and an agent in one process, an app as a bare process, called through the queue
// and directly, its log read, and everything gone after Ctrl-C.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { run, start } from './command.ts';

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const SERVER = `
import { createServer } from 'node:http';
createServer((request, response) => {
  let text = '';
  request.on('data', (chunk) => (text += chunk)).on('end', () => {
    if (request.url === '/health') return response.end('ok');
    console.log('called', request.url);
    response.writeHead(request.url === '/fail' ? 500 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ path: request.url, input: JSON.parse(text || 'null'), pid: process.pid }));
  });
}).listen(process.env.PORT, '127.0.0.1', () => console.log('listening'));
`;

t.test('dev, deploy, run, look, stop', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'runmesh-dev-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const listen = `127.0.0.1:${await freePort()}`;
  const url = `http://${listen}`;
  const data = join(folder, 'data');
  await mkdir(join(folder, 'app'));
  await writeFile(join(folder, 'app/server.mjs'), SERVER);
  await writeFile(
    join(folder, 'app/app.yaml'),
    'app: acme/try\ncommand: [node, server.mjs]\ndir: .\nscaling: { keep_alive: 30 }\n',
  );
  const dev = start(['dev', '--listen', listen, '--data', data]);
  t.teardown(() => void dev.child.kill('SIGKILL'));
  await dev.said('node joined');

  const second = await run(['dev', '--listen', `127.0.0.1:${await freePort()}`, '--data', data]);
  t.equal(second.code, 71, 'one data folder, one coordinator');
  t.match(second.err, /STORE_LOCKED/);
  const port = await run(['dev', '--listen', listen, '--data', join(folder, 'other')]);
  t.equal(port.code, 71, 'one port, one program');
  t.match(port.err, /Another program listens there/);

  const deployed = await run(['deploy', join(folder, 'app/app.yaml')], { url });
  t.equal(deployed.code, 0, deployed.err);
  const first = await run(['run', 'acme/try/a?b=1', '--input', '{"n":1}'], { url });
  t.equal(first.code, 0, first.err);
  const answer = JSON.parse(first.out) as { pid: number };
  t.match(answer, { path: '/a?b=1', input: { n: 1 } });
  const direct = await run(['run', 'acme/try', '--direct', '--json'], { url });
  t.match(JSON.parse(direct.out), { ok: true, output: { pid: answer.pid } }, 'on the same runner');
  const failed = await run(['run', 'acme/try/fail'], { url });
  t.equal(failed.code, 1);
  const none = await run(['run', 'acme/none', '--direct'], { url });
  t.equal(none.code, 66, none.err);

  const log = await run(['logs', 'acme/try'], { url });
  t.match(log.out, /^listening\ncalled \/a\?b=1\ncalled \/\ncalled \/fail\n/);
  const runners = JSON.parse((await run(['runners', '--json'], { url })).out) as { id: string }[];
  t.match(runners, [{ state: 'IDLE', app: 'acme/try' }]);
  const requests = JSON.parse((await run(['requests', '--json'], { url })).out) as unknown;
  t.match(requests, [{ httpStatus: 500 }, { httpStatus: 200 }]);
  const stop = await run(['runners', 'stop', runners[0]?.id ?? ''], { url });
  t.equal(stop.code, 0, stop.err);
  await dev.said('runner ended');

  dev.child.kill('SIGINT');
  const { code, err } = await dev.ended;
  t.equal(code, 0, 'it stopped in order');
  t.match(err, /runner IDLE[^]*request completed[^]*stopping/);
});
