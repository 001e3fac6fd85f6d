// `npm test`: fetches the Debian programs that tests need, runs tap over the test files, says what
// was skipped and why, and ends with the line `N passed, N failed[, N skipped]`.
//
//   npm test                               everything
//   npm test -- test/tally.test.ts         some files
//   npm test -- --coverage                 with coverage (twice as slow)
//
// Anything else that starts with `--` goes to tap.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { constants } from 'node:os';
import { join } from 'node:path';
import { Tally, verdict, type FileTally, type Noted } from './tally.ts';
import { tools } from './tools/tools.ts';

const root = join(import.meta.dirname, '..');
const args = process.argv.slice(2);
const hasCoverage = args.includes('--coverage');

const debian = await tools(['runtime', 'images'], {
  say: (line) => console.log(`tools: ${line}`),
  retry: true,
});
for (const { name, reason } of debian.missing) console.log(`tools: no ${name}: ${reason}`);

const flags = hasCoverage ? [] : ['--disable-coverage'];
const child = spawn(
  join(root, 'node_modules/.bin/tap'),
  ['--reporter=tap', ...flags, ...args.filter((arg) => arg !== '--coverage')],
  { cwd: root, env: debian.env(withOurNode()), stdio: ['ignore', 'pipe', 'inherit'] },
);
// Ctrl-C reaches tap and the tests by itself; we stay to say how far they came.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));

const files: FileTally[] = [];
const tally = new Tally();
let isCoverageReport = false;
for await (const line of createInterface({ input: child.stdout })) {
  if (hasCoverage && /^# {2}?-+\|/.test(line)) isCoverageReport = true;
  if (isCoverageReport) console.log(line);
  const file = tally.line(line);
  if (file === undefined) continue;
  files.push(file);
  report(file);
}
const code = await new Promise<number>((resolve) => {
  const done = (): void => {
    const { exitCode, signalCode } = child;
    resolve(exitCode ?? 128 + (constants.signals[signalCode ?? 'SIGTERM'] ?? 0));
  };
  if (child.exitCode !== null || child.signalCode !== null) done();
  else child.once('exit', done);
});
finish(code);

/** tap and the tests start `node` by name: it must be the one from npm. */
function withOurNode(): NodeJS.ProcessEnv {
  const path = `${join(root, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}`;
  // The tidy test strips types with a function of Node's that is still marked experimental.
  const quiet = '--disable-warning=ExperimentalWarning';
  const options = [process.env['NODE_OPTIONS'], quiet].filter(Boolean).join(' ');
  return { ...process.env, PATH: path, NODE_OPTIONS: options };
}

function report(file: FileTally): void {
  const counts = verdict(file.passed, file.failed.length, file.skipped.length);
  console.log(`${file.isOk ? 'ok    ' : 'FAILED'}  ${file.file}  ${counts}`);
  for (const failure of file.failed) {
    console.log(`\n  ${failure.path.join(' > ')}\n${failure.text.replace(/^/gm, '    ')}`);
  }
}

function finish(tapCode: number): void {
  const sum = (count: (file: FileTally) => number): number =>
    files.reduce((total, file) => total + count(file), 0);
  const passed = sum((file) => file.passed);
  const skipped = files.flatMap((file) => file.skipped);
  let failed = sum((file) => file.failed.length);
  if (tapCode !== 0 && failed === 0) {
    console.log(`tap ended with code ${tapCode} although no test failed`);
    failed = 1;
  }
  if (passed + failed === 0) {
    console.log('no test ran');
    failed = 1;
  }
  reportSkipped(skipped);
  console.log(verdict(passed, failed, skipped.length));
  process.exitCode = failed > 0 ? 1 : 0;
}

function reportSkipped(skipped: readonly Noted[]): void {
  for (const [reason, some] of Map.groupBy(skipped, (noted) => noted.text)) {
    console.log(`skipped (${reason}):`);
    for (const { path } of some) console.log(`  ${path.join(' > ')}`);
  }
}
