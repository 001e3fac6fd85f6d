// runc and conmon as child processes. runc makes and signals containers; one conmon per container is its parent, so
// that its exit status and output are kept when the agent is away (A2).
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import { lastLine, programOnPath, runCommand } from '../host/command.ts';

/** A start that takes longer hangs in a device or a hook. */
const CREATE_WITHIN_MS = 60_000;

/** Where conmon keeps what it knows about one container, all inside the runner's folder. */
export interface ConmonPaths {
  folder: string;
  log: string;
  exits: string;
  persist: string;
  conmonPid: string;
}

export function conmonPaths(folder: string): ConmonPaths {
  return {
    folder,
    log: join(folder, 'log'),
    exits: join(folder, 'exits'),
    persist: join(folder, 'persist'),
    conmonPid: join(folder, 'conmon.pid'),
  };
}

export class Runc {
  readonly #root: string;
  readonly #clock: Clock;

  /** `root` is ours alone: what it lists, this data folder started. */
  constructor(root: string, clock: Clock) {
    this.#root = root;
    this.#clock = clock;
  }

  /** Why it cannot be used, or undefined. */
  missing(): string | undefined {
    const names = ['runc', 'conmon'].filter((name) => programOnPath(name) === undefined);
    return names.length === 0 ? undefined : `not found on PATH: ${names.join(', ')}`;
  }

  /** Creates the container of the bundle in `paths.folder`. @returns the pid of its main process */
  async create(id: string, paths: ConmonPaths): Promise<number> {
    const runc = programOnPath('runc');
    const conmon = programOnPath('conmon');
    if (runc === undefined || conmon === undefined) throw refused(this.missing() ?? '');
    const args = [
      ...['--api-version', '1', '-c', id, '-u', id, '-n', id, '-r', runc, '-b', paths.folder],
      ...['-p', join(paths.folder, 'pid'), '-P', paths.conmonPid, '-l', `k8s-file:${paths.log}`],
      // Two generations are kept (conmon-log.ts), so each has half.
      ...['--log-size-max', String(limits.logBytes / 2), '--no-sync-log', '--no-new-keyring'],
      ...['--exit-dir', paths.exits, '--persist-dir', paths.persist],
      ...['--socket-dir-path', join(paths.folder, 'sockets'), '--full-attach'],
      ...['--runtime-arg', `--root=${this.#root}`],
    ];
    const child = spawn(conmon, args, {
      cwd: paths.folder,
      env: { PATH: process.env['PATH'] ?? '', _OCI_SYNCPIPE: '3' },
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    });
    // First of all: without a free descriptor the child has no pipes, and only this event.
    const broken = new Promise<never>((_, reject) =>
      child.once('error', (cause) => reject(refused('conmon could not be started', cause))),
    );
    if (child.pid === undefined) return await broken;
    broken.catch(() => undefined);
    return await this.#createdPid(child.stdio[3] as Readable, child.stdio[2] as Readable);
  }

  async start(id: string): Promise<void> {
    await this.#run('start', id);
  }

  async terminate(id: string): Promise<void> {
    await this.#run('kill', id, 'TERM');
  }

  /** Kills and forgets the container; fine when there is none. */
  async delete(id: string): Promise<void> {
    await this.#run('delete', '--force', id);
  }

  /** Ids of every container under our root. */
  async list(): Promise<string[]> {
    const { stdout } = await runCommand('runc', ['--root', this.#root, 'list', '--quiet'], {
      clock: this.#clock,
    });
    return stdout.split('\n').filter((line) => line !== '');
  }

  async #run(verb: string, ...args: string[]): Promise<void> {
    try {
      await runCommand('runc', ['--root', this.#root, verb, ...args], { clock: this.#clock });
    } catch (thrown) {
      throw refused(thrown instanceof Failure ? runcWords(thrown.message) : String(thrown), thrown);
    }
  }

  /** conmon writes one JSON line: `data` is the pid, or negative with runc's words in `message`. */
  #createdPid(sync: Readable, errors: Readable): Promise<number> {
    return new Promise((resolve, reject) => {
      let text = '';
      let said = '';
      const end = (result: () => void): void => {
        timer.cancel();
        sync.destroy(); // conmon keeps its ends open as long as it lives.
        errors.destroy();
        result();
      };
      const timer = this.#clock.after(CREATE_WITHIN_MS, () =>
        end(() => reject(refused(`no container within ${CREATE_WITHIN_MS} ms`))),
      );
      errors
        .setEncoding('utf8')
        .on('data', (chunk: string) => (said = (said + chunk).slice(-4096)));
      errors.on('error', () => undefined);
      sync.on('error', () => undefined);
      sync.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        if (!text.includes('\n')) return;
        const { pid, words } = parseSync(text);
        end(() => (pid > 0 ? resolve(pid) : reject(refused(runcWords(words)))));
      });
      sync.on('end', () =>
        end(() => reject(refused(runcWords(said) || 'conmon ended without a word'))),
      );
    });
  }
}

function parseSync(text: string): { pid: number; words: string } {
  try {
    const message: unknown = JSON.parse(text.slice(0, text.indexOf('\n')));
    if (typeof message === 'object' && message !== null) {
      const pid: unknown = Reflect.get(message, 'data');
      const words: unknown = Reflect.get(message, 'message');
      return {
        pid: typeof pid === 'number' ? pid : -1,
        words: typeof words === 'string' ? words : '',
      };
    }
  } catch {
    // Not what conmon promises: shown as it is.
  }
  return { pid: -1, words: text };
}

/** The sentence in a line of runc's log: `time="…" level=error msg="…"`. */
export function runcWords(text: string): string {
  const quoted = /msg=("(?:[^"\\]|\\.)*")/.exec(lastLine(text))?.[1];
  if (quoted === undefined) return lastLine(text);
  try {
    return String(JSON.parse(quoted));
  } catch {
    return quoted;
  }
}

function refused(words: string, cause?: unknown): Failure {
  return new Failure('DRIVER_FAILED', words, cause === undefined ? {} : { cause });
}

/** The status that conmon wrote when the container ended, or undefined while it runs. */
export async function exitStatus(id: string, paths: ConmonPaths): Promise<number | undefined> {
  const text = await readFile(join(paths.exits, id), 'utf8').catch(() => '');
  return /^\d+$/.test(text.trim()) ? Number(text) : undefined;
}
