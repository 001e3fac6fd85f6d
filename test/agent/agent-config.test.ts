// Settings: three sources in order, refusals that name key and line, secrets that do not show.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { agentTable, loadAgentConfig } from '../../agent/config.ts';
import { parseHostPort } from '../../shared/host-port.ts';
import { describeConfig } from '../../shared/config.ts';

const folder = await mkdtemp(join(tmpdir(), 'runmesh-config-'));
t.teardown(() => rm(folder, { recursive: true }));

async function load(
  text: string,
  env: Record<string, string> = {},
  flags: Record<string, unknown> = {},
) {
  const file = join(folder, 'agent.yaml');
  await writeFile(file, text);
  return loadAgentConfig({ file, env, flags });
}

t.test('file < environment < flag', async (t) => {
  const file = 'coordinator: ws://a:1\nname: file\ndata: /file\nlabels: { zone: a }\n';
  const env = { RUNMESH_NAME: 'env', RUNMESH_DATA: '/env', RUNMESH_URL: 'http://not.ours' };
  const config = await load(file, env, { data: '/flag', token: undefined });
  t.match(config, { coordinator: 'ws://a:1', name: 'env', data: '/flag', labels: { zone: 'a' } });
  t.match(config.listen, { host: '127.0.0.1', port: 8801 }, 'defaults');
  t.ok(Object.isFrozen(config));
  const lists = await load('coordinator: ws://a:1', {
    RUNMESH_ALLOW_PRIVATE: '10.0.0.0/8, ::1',
    RUNMESH_LABELS: 'a=1,b=x=y',
    RUNMESH_MEMORY: '2GiB',
    RUNMESH_CPU: '1.5',
  });
  t.match(lists, {
    allowPrivate: ['10.0.0.0/8', '::1'],
    labels: { a: '1', b: 'x=y' },
    memory: 2 ** 31,
    cpu: 1.5,
  });
});

t.test('what is wrong is named, with its place', async (t) => {
  const bad: [string, Record<string, string>, Record<string, unknown>, RegExp, object][] = [
    [
      'coordinator: ws://a:1\n\nfoo: 1\n',
      {},
      {},
      /agent\.yaml:3: unknown key foo/,
      { key: 'foo', line: 3 },
    ],
    [
      'coordinator: ws://a:1\nlisten: nowhere\n',
      {},
      {},
      /agent\.yaml:2: listen: expected host:port/,
      { key: 'listen', line: 2 },
    ],
    ['coordinator: [\n', {}, {}, /agent\.yaml:\d+:\d+: /, {}],
    ['- a\n', {}, {}, /expected a map/, { line: 1 }],
    ['', {}, {}, /coordinator: is required/, { key: 'coordinator' }],
    [
      '',
      { RUNMESH_COORDINATOR: 'http://a' },
      {},
      /RUNMESH_COORDINATOR: expected ws:/,
      { key: 'coordinator' },
    ],
    [
      '',
      {},
      { coordinator: 'ws://a:1', labels: ['zone'] },
      /--labels: expected name=value/,
      { key: 'labels' },
    ],
    ['', {}, { nonsense: 1 }, /--nonsense: unknown flag/, { key: 'nonsense' }],
    ['coordinator: ws://a:1\nlisten: 0.0.0.0:8801\n', {}, {}, /beyond loopback/, { key: 'listen' }],
  ];
  for (const [file, env, flags, message, detail] of bad)
    await t.rejects(
      load(file, env, flags),
      { code: 'CONFIG_INVALID', message, detail },
      `${message}`,
    );
  await t.rejects(load('', { RUNMESH_TOKEN: 'short' }, { coordinator: 'ws://a:1' }), {
    message: /^RUNMESH_TOKEN: is malformed$/,
  });
  await t.rejects(loadAgentConfig({ file: join(folder, 'none'), env: {}, flags: {} }), {
    code: 'CONFIG_INVALID',
  });
});

t.test('secrets do not show; a token opens the world', async (t) => {
  const config = await load('coordinator: wss://c\nlisten: "[::]:0"\ntoken: very-secret-token\n');
  const shown = describeConfig(agentTable, config);
  t.match(shown, 'token: (redacted)');
  t.notMatch(shown, 'very-secret');
  t.match(config.listen, { host: '::', port: 0 });
});

t.test('host and port', async (t) => {
  t.strictSame(parseHostPort('[::1]:80'), { host: '::1', port: 80 });
  t.strictSame(parseHostPort('a.b:0'), { host: 'a.b', port: 0 });
  for (const bad of ['a', ':80', 'a:', 'a:65536', '::1:80', 'a b:1', 'http://a:1'])
    t.equal(parseHostPort(bad), undefined, bad);
});
