// Runs one test file in a process of its own and counts what it says.
//
//   R1  A file that says nothing, ends with an error or does not end in time has failed, whatever
//       its tests said until then.
//   R2  On a timeout the file's whole process group goes, so that what it started goes with it.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Tally, type FileTally } from './tally.ts';

const GRACE_MS = 5_000;
const STDERR_KEPT = 8_192;

/** What all files are run with. */
export interface RunSettings {
  readonly root: string;
  readonly env: NodeJS.ProcessEnv;
  readonly timeoutMs: number;
}

/** Groups of the files that run now; `endRunning` passes a signal on to them. */
const running = new Set<number>();

/** Ends every file that runs now, for Ctrl-C. */
export function endRunning(signal: NodeJS.Signals): void {
  for (const group of running) signalGroup(group, signal);
}

/** Runs `file` to its end. Never rejects (R1). */
export async function runFile(file: string, settings: RunSettings): Promise<FileTally> {
  const { root, env, timeoutMs } = settings;
  const child = spawn(process.execPath, [file], {
    cwd: root,
    env: { ...env, TAP_TIMEOUT: String(timeoutMs / 1000) },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const group = child.pid;
  if (group !== undefined) running.add(group);
  let isLate = false;
  let stderr = '';
  child.stderr.on(
    'data',
    (chunk: Buffer) => (stderr = (stderr + String(chunk)).slice(-STDERR_KEPT)),
  );
  const ended = new Promise<string | undefined>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('exit', (code, signal) => {
      if (code !== 0) resolve(signal === null ? `exit code ${code}` : `killed by ${signal}`);
      else resolve(undefined);
      // What it left behind would keep our pipes open.
      if (group !== undefined) signalGroup(group, 'SIGKILL');
    });
  });
  const late = setTimeout(() => {
    isLate = true;
    if (group !== undefined) signalGroup(group, 'SIGTERM');
    setTimeout(() => group !== undefined && signalGroup(group, 'SIGKILL'), GRACE_MS).unref();
  }, timeoutMs + GRACE_MS);
  const tally = new Tally();
  tally.line(`# Subtest: ${file}`);
  let wholeSkip = '';
  for await (const line of createInterface({ input: child.stdout })) {
    wholeSkip = /^1\.\.0 # (.*)$/.exec(line)?.[1] ?? wholeSkip;
    tally.line(`    ${line}`);
  }
  const why = await ended;
  clearTimeout(late);
  if (group !== undefined) running.delete(group);
  return close(tally, file, {
    why: isLate ? `no end after ${timeoutMs} ms` : why,
    stderr,
    wholeSkip,
  });
}

/** How a file's process ended. */
interface End {
  readonly why: string | undefined;
  readonly stderr: string;
  readonly wholeSkip: string;
}

/** Ends the file's tally with what its process's end says (R1). */
function close(tally: Tally, file: string, { why, stderr, wholeSkip }: End): FileTally {
  const directive = wholeSkip === '' ? '' : ` # SKIP ${wholeSkip}`;
  const end = tally.end(`${why === undefined ? 'ok' : 'not ok'} 1 - ${file}${directive}`);
  const isSilent = end.passed + end.failed.length + end.skipped.length === 0;
  const reason = why ?? (isSilent ? 'no test in it' : undefined);
  if (reason === undefined) return end;
  const text = [reason, ...stderr.trimEnd().split('\n').slice(-40)].join('\n');
  const own = { path: [file], text: `${text}\n` };
  const inside = end.failed.filter((failure) => failure.path.length > 1);
  // Tests that failed explain an exit code; what was written to stderr may explain more.
  return {
    ...end,
    isOk: false,
    failed: inside.length > 0 && !isAbrupt(reason) ? inside : [...inside, own],
  };
}

/** True for ends that failed tests alone do not explain. */
const isAbrupt = (reason: string): boolean => !/^exit code 1$/.test(reason);

function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // Nobody of it is left.
  }
}
