// The bench is not part of the tests, but its rows must not rot: each runs here in its smallest form, with its controls.
// No figure is judged. Then: its statistics, its shim, and that Ctrl-C leaves nothing behind.
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { number } from './bench/report.ts';
import { phasesOf, stateChanges } from './bench/runner-phases.ts';
import { rows } from './bench/rows.ts';
import { runRow } from './bench/run-row.ts';
import { SlowFsync } from './bench/slow-fsync.ts';
import { median, percentile, ratio } from './bench/statistics.ts';
import { command } from './tools/command.ts';
import { tools } from './tools/tools.ts';

// A dozen programs are started one after the other; run by hand, tap would give the file 30 s.
t.setTimeout(110_000);

const debian = await tools(['runtime', 'images', 'bench']);
const MAIN = join(import.meta.dirname, 'bench/main.ts');

for (const row of rows) {
  const skip = await row.whyNot(debian);
  await t.test(`${row.name}: both sides run and the controls pass`, { skip }, async (t) => {
    const said: string[] = [];
    const { signal } = new AbortController();
    const say = (line: string): unknown => said.push(line);
    const result = await runRow(row, { tools: debian, depth: 'smoke', signal, say });
    for (const { name, expected, observed, passed } of result.controls)
      t.ok(passed, `${name}: ${expected}`, { observed });
    for (const { name, ours, rival, ratio } of result.figures) {
      const isMeasured = [ours, rival, ratio].every(({ median }) => Number.isFinite(median));
      t.ok(isMeasured, `${name} is measured on both sides`, { ours, rival });
    }
    const troubles = said.filter((line) => !line.startsWith('round '));
    t.strictSame(troubles, [], 'everything could be undone');
  });
}

t.test('statistics', async (t) => {
  const values = [5, 1, 4, 2, 3];
  t.equal(median(values), 3);
  t.equal(median([1, 2, 3, 10]), 2.5);
  t.equal(percentile(values, 0.5), 3);
  t.equal(percentile(values, 0.99), 5);
  t.equal(percentile(values, 0), 1);
  t.throws(() => percentile([], 0.5), /nothing was measured/);
  t.strictSame(ratio([2, 4, 9], [1, 4, 3]), { median: 4 / 3, min: 1, max: 3 });
  t.strictSame([0.01234, 1.234, 12.34, 123.4, 1234, 0].map(number), [
    ...['0.0123', '1.23', '12.3', '123', '1234', '0'],
  ]);
});

t.test('phases are read from the log', async (t) => {
  const line = (event: string, second: number, state?: string): string =>
    JSON.stringify({ time: new Date(second * 1000).toISOString(), runner: 'r1', state, event });
  const log = [
    line('runner.state', 1, 'PENDING'),
    'not one of ours',
    line('runner.planned', 1),
    line('runner.state', 3, 'IDLE'),
    line('runner.state', 7, 'TERMINATING'),
    line('runner.ended', 8),
  ];
  const changes = stateChanges(log.join('\n'));
  const names = changes.map(({ state }) => state);
  t.strictSame(names, ['PENDING', 'IDLE', 'TERMINATING', 'TERMINATED']);
  t.strictSame(
    [...phasesOf(changes, 500, 4000)],
    [
      ['POST → PENDING', 500],
      ['PENDING → IDLE', 2000],
      ['IDLE → answer', 1000],
    ],
  );
});

t.test('the shim counts and delays', { skip: debian.lacks('tcc') }, async (t) => {
  const folder = t.testdir();
  const slow = await SlowFsync.build(debian, folder);
  const script = `
    const { openSync, fsyncSync, fdatasyncSync } = require('node:fs');
    const fd = openSync(${JSON.stringify(join(folder, 'file'))}, 'w');
    const startMs = performance.now();
    for (let at = 0; at < 50; at += 1) { fsyncSync(fd); fdatasyncSync(fd); }
    console.log(performance.now() - startMs);`;
  const env = { ...process.env, ...slow.env('side') };
  const ended = await command(process.execPath, ['-e', script], { env });
  t.equal(slow.count('side'), 100);
  t.ok(Number(ended.stdout) >= 100, 'a millisecond each', ended);
  t.equal(slow.count('another side'), 0);
});

t.test('Ctrl-C leaves nothing behind', { skip: debian.lacks('nginx') }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const env = { ...process.env, TMPDIR: folder };
  const child = spawn(process.execPath, [MAIN, 'direct-run'], { env, stdio: 'pipe' });
  t.teardown(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.resume();
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    const wasWarm = said.includes('warming up');
    said += text;
    // In the middle of its load.
    if (!wasWarm && said.includes('warming up')) child.kill('SIGINT');
  });
  const [code] = await once(child, 'close');
  t.equal(code, 130, said);
  t.strictSame(readdirSync(folder), [], 'no folder is left');
  t.strictSame(processesNaming(folder), [], 'no process is left');
});

t.test('wrong use is refused with the names that there are', async (t) => {
  const unknown = await command(process.execPath, [MAIN, 'no-such-row']);
  t.equal(unknown.code, 64);
  t.match(unknown.stderr, /no row no-such-row; there are direct-run, durable-submit, cold-start/);
  const listed = await command(process.execPath, [MAIN, '--list']);
  t.equal(listed.stdout.trim().split('\n').length, rows.length);
});

function processesNaming(folder: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
      } catch {
        return '';
      }
    })
    .filter((line) => line.includes(folder));
}
