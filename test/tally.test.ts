// The line that ends `npm test` is believed by people and by CI: no failure may be lost in it.

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Tally, verdict, type FileTally } from './tally.ts';

const read = (text: string): FileTally[] => {
  const tally = new Tally();
  return text.split('\n').flatMap((line) => tally.line(line) ?? []);
};

t.test('counts leaves, not the points that close subtests (Y1)', async (t) => {
  const [file] = read(`TAP version 14
# Subtest: test/a.test.ts
    # Subtest: one
        ok 1 - x
        # Subtest: deep
            ok 1 - y
            1..1
        ok 2 - deep # time=1ms
        1..2
    ok 1 - one # time=2ms
    1..1
ok 1 - test/a.test.ts # time=3ms
1..1`);
  t.match(file, { file: 'test/a.test.ts', isOk: true, passed: 2, failed: [], skipped: [] });
});

t.test('a failure keeps its path and diagnostics, and diagnostics are not points', async (t) => {
  const [file] = read(`# Subtest: test/a.test.ts
    # Subtest: one
        not ok 1 - should be equal
          ---
          diff: |
            ok 1 - not a point
          ...
        1..1
    not ok 1 - one # time=2ms
      ---
      at: here
      ...
    1..1
not ok 1 - test/a.test.ts # time=3ms
  ---
  exitCode: 1
  ...
1..1`);
  t.equal(file?.isOk, false);
  t.equal(file?.passed, 0);
  t.strictSame(file?.failed, [
    {
      path: ['test/a.test.ts', 'one', 'should be equal'],
      text: 'diff: |\n  ok 1 - not a point\n',
    },
  ]);
});

t.test('a subtest that fails without a failed leaf is one failure (Y2)', async (t) => {
  const [file] = read(`# Subtest: test/a.test.ts
    ok 1 - fine
    1..1
not ok 1 - test/a.test.ts # time=3ms
  ---
  signal: SIGKILL
  ...`);
  t.match(file, { passed: 1, failed: [{ path: ['test/a.test.ts'], text: 'signal: SIGKILL\n' }] });
});

t.test('skips keep their reason, also of a whole file (Y3)', async (t) => {
  const files = read(`# Subtest: test/a.test.ts
    ok 1 - needs root # SKIP not root
    1..1
ok 1 - test/a.test.ts # time=3ms
# Subtest: test/b.test.ts
    1..0 # no such machine
ok 2 - test/b.test.ts # SKIP no such machine`);
  t.strictSame(
    files.map(({ passed, skipped }) => [passed, skipped]),
    [
      [0, [{ path: ['test/a.test.ts', 'needs root'], text: 'not root' }]],
      [0, [{ path: ['test/b.test.ts'], text: 'no such machine' }]],
    ],
  );
});

t.test('the last line', async (t) => {
  t.equal(verdict(3, 0, 0), '3 passed, 0 failed');
  t.equal(verdict(3, 1, 2), '3 passed, 1 failed, 2 skipped');
});

t.test('run.ts: real files, real tap', async (t) => {
  const run = (name: string, text: string) => {
    const file = join(t.testdir(), name);
    writeFileSync(file, text);
    const path = [join(import.meta.dirname, 'run.ts'), file];
    // The test runner's own settings must not reach the runner we test.
    const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !/^_?TAP/.test(k)));
    const ended = spawnSync(process.execPath, path, { env, encoding: 'utf8', timeout: 60_000 });
    return {
      code: ended.status,
      last: ended.stdout.trimEnd().split('\n').at(-1),
      all: ended.stdout,
    };
  };
  const mixed = run(
    'mixed.test.ts',
    `import t from 'tap';
     t.test('good', async (t) => { t.ok(true); t.equal(1, 1); });
     t.test('away', { skip: 'because' }, async () => {});
     t.test('bad', async (t) => { t.equal(1, 2); });`,
  );
  t.equal(mixed.last, '2 passed, 1 failed, 1 skipped');
  t.equal(mixed.code, 1);
  t.match(mixed.all, /skipped \(because\):\n {2}.*mixed\.test\.ts > away/);
  const dying = run(
    'dying.test.ts',
    `import t from 'tap';
     t.ok(true);
     process.kill(process.pid, 'SIGKILL');`,
  );
  t.equal(dying.code, 1);
  t.match(dying.last, /^\d passed, 1 failed$/);
  const empty = run('empty.test.ts', '');
  t.equal(empty.code, 1, 'a run without tests is a failure');
  const good = run('good.test.ts', `import t from 'tap'; t.ok(true);`);
  t.match(good, { code: 0, last: '1 passed, 0 failed' });
});
