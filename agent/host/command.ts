// Runs one program of the host: an argument list, never a shell; a bounded output, a deadline, and a kill by the
// handle of the child it started itself. What goes wrong is a Failure that carries the program's own last words.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';

export interface CommandOptions {
  clock: Clock;
  cwd?: string;
  /** Written to its standard input, which is empty otherwise. */
  input?: string;
  /** 30 s when absent. */
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

export interface CommandOutput {
  stdout: string;
  stderr: string;
}

const TIMEOUT_MS = 30_000;

/** The absolute path of a program found on PATH, or undefined. */
export function programOnPath(name: string, path = process.env['PATH'] ?? ''): string | undefined {
  const folders = `${path}${delimiter}/usr/sbin${delimiter}/sbin`.split(delimiter);
  for (const folder of folders) {
    if (!folder.startsWith('/')) continue;
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here: the next folder may have it.
    }
  }
  return undefined;
}

/** The last line of what a program said, for a message. */
export function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)?.slice(0, 500) ?? '';
}

/** @throws Failure HOST_COMMAND_FAILED; the signal's own reason when it aborts first */
export async function runCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<CommandOutput> {
  options.signal?.throwIfAborted();
  const file = programOnPath(program);
  if (file === undefined) throw failed(program, 'not found on PATH');
  const child = spawn(file, args, { cwd: options.cwd, stdio: 'pipe' });
  return await new Promise((resolve, reject) => {
    child.on('error', (cause) => reject(failed(program, 'could not be started', { cause })));
    // Without a free descriptor it has no pipes either, and only that event.
    if (child.pid === undefined) return;
    const output = collect(child);
    const stop = (reason: unknown): void => {
      settle();
      child.kill('SIGKILL');
      reject(reason);
    };
    const onAbort = (): void => stop(options.signal?.reason);
    const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    const timer = options.clock.after(timeoutMs, () =>
      stop(failed(program, `no end within ${timeoutMs} ms`)),
    );
    const settle = (): void => {
      timer.cancel();
      options.signal?.removeEventListener('abort', onAbort);
    };
    options.signal?.addEventListener('abort', onAbort, { once: true });
    output.onFlood = () =>
      stop(failed(program, `more than ${limits.commandOutputBytes} bytes of output`));
    child.on('close', (code, signal) => {
      settle();
      if (code === 0) return resolve({ stdout: output.stdout, stderr: output.stderr });
      const how = code === null ? `killed by ${signal}` : `exit code ${code}`;
      const words = lastLine(output.stderr);
      reject(failed(program, words === '' ? how : `${how}: ${words}`, { code: code ?? -1 }));
    });
    child.stdin.on('error', () => undefined); // EPIPE: it ended without reading; its exit code tells.
    child.stdin.end(options.input ?? '');
  });
}

function collect(child: ChildProcessWithoutNullStreams) {
  const output = { stdout: '', stderr: '', onFlood: (): void => undefined };
  const take = (name: 'stdout' | 'stderr'): void => {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
      if (output.stdout.length + output.stderr.length > limits.commandOutputBytes) output.onFlood();
    });
  };
  take('stdout');
  take('stderr');
  return output;
}

function failed(
  program: string,
  what: string,
  more: { cause?: unknown; code?: number } = {},
): Failure {
  return new Failure('HOST_COMMAND_FAILED', `${program}: ${what}`, {
    ...(more.cause === undefined ? {} : { cause: more.cause }),
    detail: { program, exitCode: more.code ?? null },
  });
}
