// `npm test`: fetches the Debian programs that tests need, runs the test files, says what was skipped
// and why, and ends with the line `N passed, N failed[, N skipped]`.
//
//   npm test                               everything
//   npm test -- test/tally.test.ts         some files
//   npm test -- --coverage [files…]        with tap's own runner and its coverage report
//
// The files are run here and not by tap's runner: once a file has failed, that one gives up on files
// that are still to come, `timeout` seconds after its start.

import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { endRunning, runFile, type RunSettings } from './run-file.ts';
import { verdict, type FileTally, type Noted } from './tally.ts';
import { tools } from './tools/tools.ts';

interface Manifest {
  readonly tap: { readonly include: string[]; readonly jobs: number; readonly timeout: number };
}

const root = join(import.meta.dirname, '..');
const { tap } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest;
const asked = process.argv.slice(2);

const debian = await tools(['runtime', 'images'], {
  say: (line) => console.log(`tools: ${line}`),
  retry: true,
});
for (const { name, reason } of debian.missing) console.log(`tools: no ${name}: ${reason}`);

if (asked.includes('--coverage')) {
  const rest = asked.filter((arg) => arg !== '--coverage');
  const args = ['--show-full-coverage', ...rest];
  const ended = spawnSync('tap', args, { cwd: root, env: environment(), stdio: 'inherit' });
  process.exitCode = ended.status ?? 1;
} else {
  const files = asked.length > 0 ? asked.map((file) => relative(root, resolve(file))) : everyFile();
  await runAll(files);
}

function everyFile(): string[] {
  return tap.include.flatMap((pattern) => globSync(pattern, { cwd: root })).sort();
}

/** The tests start `node` and the Debian programs by name. */
function environment(): NodeJS.ProcessEnv {
  const path = `${join(root, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}`;
  // The tidy test strips types with a function of Node's that is still marked experimental.
  const quiet = '--disable-warning=ExperimentalWarning';
  const options = [process.env['NODE_OPTIONS'], quiet].filter(Boolean).join(' ');
  return debian.env({ ...process.env, PATH: path, NODE_OPTIONS: options });
}

async function runAll(files: readonly string[]): Promise<void> {
  const settings: RunSettings = { root, env: environment(), timeoutMs: tap.timeout * 1000 };
  const waiting = [...files];
  const done: FileTally[] = [];
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      waiting.length = 0;
      endRunning(signal);
    });
  }
  const work = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const tally = await runFile(file, settings);
      done.push(tally);
      report(tally);
    }
  };
  await Promise.all(Array.from({ length: tap.jobs }, work));
  finish(done, files.length);
}

function report(file: FileTally): void {
  const counts = verdict(file.passed, file.failed.length, file.skipped.length);
  console.log(`${file.isOk ? 'ok    ' : 'FAILED'}  ${file.file}  ${counts}`);
  for (const failure of file.failed) {
    console.log(`\n  ${failure.path.join(' > ')}\n${failure.text.replace(/^/gm, '    ')}`);
  }
}

function finish(files: readonly FileTally[], asked: number): void {
  const sum = (count: (file: FileTally) => number): number =>
    files.reduce((total, file) => total + count(file), 0);
  const passed = sum((file) => file.passed);
  const skipped = files.flatMap((file) => file.skipped);
  let failed = sum((file) => file.failed.length);
  if (files.length < asked) console.log(`${asked - files.length} files were not run`);
  if (files.length < asked || asked === 0) failed += 1;
  for (const [reason, some] of Map.groupBy(skipped, (noted: Noted) => noted.text)) {
    console.log(`skipped (${reason}):`);
    for (const { path } of some) console.log(`  ${path.join(' > ')}`);
  }
  if (asked === 0) console.log('no test file was found');
  console.log(verdict(passed, failed, skipped.length));
  process.exitCode = failed > 0 ? 1 : 0;
}
