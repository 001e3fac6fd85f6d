// Runs one program to its end and returns what it said. For set-up work only: nothing here streams.

import { execFile } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';

/** How a program ended. `code` is undefined when it could not be started or was killed. */
export interface Ended {
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Options of `command`. */
export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly timeoutMs?: number;
}

/** Runs `file args…`; never rejects. */
export function command(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<Ended> {
  const { cwd, env = process.env, timeoutMs = 30_000 } = options;
  const settings = {
    ...(cwd === undefined ? {} : { cwd }),
    // Messages are read by us: always the untranslated ones.
    env: { ...env, LC_ALL: 'C' },
    timeout: timeoutMs,
    killSignal: 'SIGKILL' as const,
    maxBuffer: 64 * 1024 * 1024,
  };
  return new Promise((resolve) => {
    const child = execFile(file, [...args], settings, (error, stdout, stderr) => {
      const why = error === null || stderr !== '' ? stderr : error.message;
      resolve({ code: child.exitCode ?? undefined, stdout, stderr: why });
    });
  });
}

/** The line of a program's complaint that says what is wrong: its first error, or its last line. */
export function complaint(ended: Ended): string {
  const lines = `${ended.stdout}\n${ended.stderr}`.split('\n').filter((line) => line.trim() !== '');
  return lines.find((line) => /^E:|^Err:|error/i.test(line)) ?? lines.at(-1) ?? 'said nothing';
}

/** True for a file that this user may execute. */
export function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
