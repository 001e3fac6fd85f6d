// The coordinator's configuration: sources, refusals, and that nobody is exposed by mistake (K1).
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { formatHostPort } from '../../shared/host-port.ts';
import { describeCoordinatorConfig, loadCoordinatorConfig } from '../../coordinator/config.ts';

const folder = await mkdtemp(join(tmpdir(), 'runmesh-config-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));
const TOKEN = '0123456789abcdef';
const load = (flags: Record<string, unknown>, env: Record<string, string> = {}, file?: string) =>
  loadCoordinatorConfig({ flags, env, file });

t.test('defaults, and file < environment < flag', async (t) => {
  t.match(await load({}), {
    listen: { host: '127.0.0.1', port: 8800 },
    heartbeatMs: 2000,
    drainSeconds: 30,
  });
  const file = join(folder, 'c.yaml');
  await writeFile(file, 'listen: 127.0.0.1:1\nlost_ms: 9000\nallowed_hosts: [Box.Local]\n');
  const config = await load({ lostMs: '8000' }, { RUNMESH_LISTEN: '127.0.0.1:2' }, file);
  t.match(config, {
    listen: { host: '127.0.0.1', port: 2 },
    lostMs: 8000,
    allowedHosts: ['box.local'],
  });
  t.match(await load({}, { RUNMESH_ALLOWED_ORIGINS: 'http://a, http://b' }), {
    allowedOrigins: ['http://a', 'http://b'],
  });
  t.match(await load({}, { RUNMESH_TRUST_PROXY: '1' }), { trustProxy: true });
  t.ok(Object.isFrozen(config));
});

t.test('a token is needed beyond loopback (K1)', async (t) => {
  for (const listen of ['0.0.0.0:8800', '[::]:8800', '10.0.0.1:8800', 'box.example:8800']) {
    await t.rejects(load({ listen }), { code: 'CONFIG_INVALID', message: /token/ }, listen);
    t.equal(formatHostPort((await load({ listen, token: TOKEN })).listen), listen);
  }
  for (const listen of ['127.0.0.1:0', '127.9.9.9:1', 'localhost:1', '[::1]:1'])
    t.equal(formatHostPort((await load({ listen })).listen), listen);
  t.match((await load({ listen: '[::1]:8800' })).listen, { host: '::1', port: 8800 });
});

t.test('what is wrong is named', async (t) => {
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ listen: '8800' }, /^--listen: expected host:port/],
    [{ listen: '127.0.0.1:70000' }, /65535/],
    [{ token: 'short' }, /^--token/],
    [{ colour: 'red' }, /^--colour: unknown flag/],
    [{ publicUrl: 'ftp://x' }, /^--public-url/],
    [{ suspectMs: 20_000 }, /suspect_ms/],
    [{ trustProxy: 'perhaps' }, /^--trust-proxy/],
  ];
  for (const [flags, message] of wrong)
    await t.rejects(load(flags), { code: 'CONFIG_INVALID', message });
  const file = join(folder, 'bad.yaml');
  await writeFile(file, 'listen: 127.0.0.1:1\nhosts: []\n');
  await t.rejects(load({}, {}, file), {
    code: 'CONFIG_INVALID',
    message: /bad\.yaml:2: unknown key hosts/,
  });
});

t.test('the token is never shown', async (t) => {
  const text = describeCoordinatorConfig(await load({ token: TOKEN }));
  t.match(text, /token: \(redacted\)/);
  t.notMatch(text, TOKEN);
});
