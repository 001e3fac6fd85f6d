// The units, as systemd itself reads them: they parse, and they stay as locked up as
// systemd/README.md says.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';

const root = join(import.meta.dirname, '..');
const folder = join(root, 'systemd');

/** Exposure that is not to be exceeded, in tenths. */
const EXPOSURE = { 'runmesh-coordinator.service': 15, 'runmesh-agent.service': 62 } as const;

const run = (program: string, ...args: string[]) => {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  return { status, said: `${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}` };
};
const skipWithout = (program: string): string | false =>
  run(program, '--version').status === 0 ? false : `${program} is not on this machine`;

t.test('every unit has its threshold', async (t) => {
  const units = readdirSync(folder).filter((name) => name.endsWith('.service'));
  t.strictSame(units.sort(), Object.keys(EXPOSURE).sort());
});

t.test('units', { skip: skipWithout('systemd-analyze') }, async (t) => {
  for (const [unit, threshold] of Object.entries(EXPOSURE)) {
    const text = readFileSync(join(folder, unit), 'utf8');
    // verify wants the program to exist: the launcher of this checkout stands for the installed one.
    const verify = (content: string) => {
      const path = join(t.testdir(), unit);
      writeFileSync(path, content.replaceAll('/opt/runmesh/', `${root}/`));
      return run('systemd-analyze', 'verify', '--man=no', path).said;
    };
    t.equal(verify(text), '', `${unit} is understood without a complaint`);
    t.match(verify(`${text}\n[Service]\nKillMod=x\n`), /Unknown key/, 'a misspelt one is not');
    const security = (limit: number) =>
      run(
        'systemd-analyze',
        'security',
        '--offline=true',
        `--threshold=${limit}`,
        join(folder, unit),
      );
    t.equal(security(threshold).status, 0, `${unit} is exposed by at most ${threshold / 10}`);
    t.not(security(threshold - 5).status, 0, 'and the threshold is close');
  }
});

t.test('users', { skip: skipWithout('systemd-sysusers') }, async (t) => {
  const target = t.testdir({ etc: {} });
  const ended = run('systemd-sysusers', `--root=${target}`, join(folder, 'runmesh.sysusers'));
  t.equal(ended.status, 0, ended.said);
  t.match(readFileSync(join(target, 'etc/passwd'), 'utf8'), /^runmesh:.*:\/usr\/sbin\/nologin$/m);
});

const notRoot = process.getuid?.() === 0 ? false : 'not root';
t.test('folders', { skip: skipWithout('systemd-tmpfiles') || notRoot }, async (t) => {
  const target = t.testdir({ etc: {} });
  run('systemd-sysusers', `--root=${target}`, join(folder, 'runmesh.sysusers'));
  const path = join(folder, 'runmesh.tmpfiles');
  const ended = run('systemd-tmpfiles', `--root=${target}`, '--create', path);
  t.equal(ended.status, 0, ended.said);
  t.strictSame(readdirSync(join(target, 'var/lib')), ['runmesh']);
  t.strictSame(readdirSync(join(target, 'etc')).includes('runmesh'), true);
});
