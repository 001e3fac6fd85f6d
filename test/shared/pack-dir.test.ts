// Packing a folder: the same files give the same digest, and what has no place in an app is refused by name.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { parseIgnoreRules } from '../../shared/ignore-rules.ts';
import { staysInside } from '../../shared/inner-link.ts';
import { packDir } from '../../shared/pack-dir.ts';

const base = await mkdtemp(join(tmpdir(), 'runmesh-pack-'));
t.teardown(() => rm(base, { recursive: true, force: true }));
const target = join(base, 'out.tar');

async function folder(name: string, files: Record<string, string>): Promise<string> {
  const root = join(base, name);
  for (const [path, body] of Object.entries(files)) {
    await mkdir(join(root, path, '..'), { recursive: true });
    await writeFile(join(root, path), body);
  }
  return root;
}

t.test('deterministic', async (t) => {
  const names = { 'b.txt': 'b', 'a/x': 'x', 'a-b': '-', 'ü/é': 'é', [`${'l'.repeat(120)}/f`]: 'l' };
  const one = await folder('one', names);
  const two = await folder('two', Object.fromEntries(Object.entries(names).reverse()));
  await utimes(join(two, 'b.txt'), 1, 1);
  await chmod(join(two, 'b.txt'), 0o640);
  await symlink('../b.txt', join(one, 'a/l'));
  await symlink('../b.txt', join(two, 'a/l'));
  const packed = await packDir({ folder: one, target });
  t.strictSame(await packDir({ folder: two, target }), packed);
  const listing = execFileSync('tar', ['-tvf', target, '--numeric-owner', '--utc'], {
    encoding: 'utf8',
  });
  t.equal(listing.trim().split('\n').length, packed.entries);
  t.match(listing, /-rw-r--r-- 0\/0 +1 1970-01-01 00:00 b\.txt/);
  t.match(listing, /a\/l -> \.\.\/b\.txt/);
  await chmod(join(two, 'b.txt'), 0o750);
  t.not((await packDir({ folder: two, target })).digest, packed.digest, 'x is kept');
});

t.test('refused by name', async (t) => {
  const root = await folder('bad', { ok: 'x' });
  const refused = async (words: RegExp): Promise<void> => {
    const message = words;
    await t.rejects(packDir({ folder: root, target }), { code: 'INPUT_INVALID', message });
    t.notOk(existsSync(target));
  };
  for (const to of ['/etc/passwd', '../x', 'a/../../x']) {
    await symlink(to, join(root, 'link'));
    await refused(/link is a symlink/);
    await rm(join(root, 'link'));
  }
  const server = createServer().listen(join(root, 'sock'));
  await new Promise((resolve) => server.once('listening', resolve));
  await refused(/sock is neither/);
  await new Promise((resolve) => server.close(resolve));
  await t.rejects(packDir({ folder: join(base, 'none'), target }), { code: 'INPUT_INVALID' });
  const big = await folder('big', { 'big.bin': 'x'.repeat(10_000) });
  await t.rejects(packDir({ folder: big, target, maxBytes: 5000 }), {
    code: 'INPUT_TOO_LARGE',
    message: /big\.bin/,
  });
});

t.test('.runmeshignore', async (t) => {
  const root = await folder('ignoring', {
    '.runmeshignore': '# no\n*.log\nbuild/\n/top\ndocs/**/*.md\n',
    '.git/HEAD': 'x',
    'a.log': 'x',
    'sub/b.log': 'x',
    'build/x': 'x',
    'sub/build': 'a file stays',
    top: 'x',
    'sub/top': 'stays',
    'docs/a/b/c.md': 'x',
    'docs/d.md': 'x',
    'docs/a.txt': 'stays',
  });
  await packDir({ folder: root, target });
  const listing = execFileSync('tar', ['-tf', target], { encoding: 'utf8' }).trim().split('\n');
  t.strictSame(
    listing.filter((name) => !name.endsWith('/')),
    ['docs/a.txt', 'sub/build', 'sub/top'],
  );
  for (const bad of ['!x', '[a]', 'a\\b'])
    t.throws(() => parseIgnoreRules(`ok\n${bad}`), { message: /\.runmeshignore:2/ }, bad);
  const rules = parseIgnoreRules('a?c\nx.y\n**/deep');
  t.ok(rules('q/abc', false));
  t.notOk(rules('a/c', false));
  t.notOk(rules('xzy', false));
  t.ok(rules('deep', false) && rules('p/q/deep', true));
});

t.test('links that stay inside', async (t) => {
  for (const [link, to] of [
    ['l', 'x'],
    ['a/l', '../x'],
    ['a/l', './b/../c'],
  ] as const)
    t.ok(staysInside(link.split('/'), to), `${link} -> ${to}`);
  for (const [link, to] of [
    ['l', '..'],
    ['l', '/x'],
    ['a/l', '../../x'],
    ['a/l', '../../a/x'],
  ] as const)
    t.notOk(staysInside(link.split('/'), to), `${link} -> ${to}`);
});
