// What a stranger does first: `runmesh dev`, the example app, and a plain script with fal's own client, each as a process
// of its own. Needs neither root nor Debian.
import { execFile } from 'node:child_process';
import { createServer, type AddressInfo } from 'node:net';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { run, start } from '../cli/command.ts';
import { namedAfter } from './leftovers.ts';

const HELLO = join(import.meta.dirname, '../../examples/hello/app.yaml');

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

t.test("a stranger's script against runmesh dev", async (t) => {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'runmesh-stranger-')));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const listen = `127.0.0.1:${await freePort()}`;
  const url = `http://${listen}`;
  // The example's command is `node`: the Node that runs us.
  const env = { PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}` };
  const dev = start(['dev', '--listen', listen, '--data', join(folder, 'data')], { env });
  t.teardown(async () => {
    dev.child.kill('SIGINT');
    await dev.ended;
  });
  await dev.said('node joined');
  const deployed = await run(['deploy', HELLO], { url });
  t.equal(deployed.code, 0, deployed.err);

  const script = join(import.meta.dirname, 'stranger.mjs');
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [script, url]);
  t.equal(stderr, '');
  const seen = JSON.parse(stdout) as Record<string, { statuses?: string[] }>;
  t.match(seen['run'], { data: { greeting: 'Hello, run!' }, requestId: /^[0-9a-f-]{36}$/ });
  for (const mode of ['polling', 'streaming']) {
    t.match(seen[mode], { data: { slept_ms: 400 } });
    // The runner is warm: the client may never see it queued.
    const statuses = (seen[mode]?.statuses ?? []).filter((status) => status !== 'IN_QUEUE');
    t.strictSame(statuses, ['IN_PROGRESS', 'COMPLETED'], mode);
  }
  t.match(seen['status'], { status: 'COMPLETED', logs: [], metrics: { inference_time: Number } });
  t.match(seen['result'], { data: { greeting: 'Hello, queue!' }, requestId: seen['requestId'] });
  t.match(seen['cancelled'], { status: 499, body: { detail: 'cancelled' } });
  t.strictSame(seen['events'], [
    { at: 1, of: 2 },
    { at: 2, of: 2 },
  ]);

  t.not(namedAfter(folder).length, 0, 'its runner is there');
  dev.child.kill('SIGINT');
  const { code } = await dev.ended;
  t.equal(code, 0);
  t.strictSame(namedAfter(folder), [], 'nothing is left');
});
