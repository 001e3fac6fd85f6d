// What a row has started: programs, folders, and whatever else must be undone. Programs get a session of their own, so
// that Ctrl-C reaches only the bench, which then takes everything down in order.
//
//   S1  Undone in reverse, each step tried even if another failed; only processes that were started here are signalled.
//   S2  A folder is removed only when nothing is mounted below it.
//   S3  If the bench itself is killed, its programs are told to end (where the machine has setpriv).
import { spawn, type ChildProcess } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
} from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { command, isProgram } from '../tools/command.ts';

/** Has the kernel send a signal when the parent dies, and then becomes the program (S3). */
const SETPRIV = '/usr/bin/setpriv';
const STOP_WITHIN_MS = 20_000;
const LOOK_EVERY_MS = 10;

export interface ProgramOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** What ends it in order. */
  readonly stopSignal?: NodeJS.Signals;
  /** Opens a channel for messages. */
  readonly ipc?: boolean;
}

/** A program that runs until it is stopped; what it says goes to a file. */
export class Program {
  readonly name: string;
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
  readonly #logFile: string;
  readonly #stopSignal: NodeJS.Signals;

  constructor(name: string, child: ChildProcess, logFile: string, stopSignal: NodeJS.Signals) {
    this.name = name;
    this.child = child;
    this.#logFile = logFile;
    this.#stopSignal = stopSignal;
    this.ended = new Promise((resolve) => {
      child.once('error', () => resolve());
      child.once('exit', () => resolve());
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} could not be started`);
    return this.child.pid;
  }

  get hasEnded(): boolean {
    return (
      this.child.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null
    );
  }

  /** Everything it has said so far. */
  said(): string {
    return readFileSync(this.#logFile, 'utf8');
  }

  /** Waits until it has said something that `pattern` matches. */
  async saying(pattern: RegExp, withinMs: number, signal: AbortSignal): Promise<RegExpExecArray> {
    return waitFor(`${this.name} to say ${pattern.source}`, withinMs, signal, () => {
      const found = pattern.exec(this.said());
      if (found === null && this.hasEnded) throw new Error(`${this.name} ended: ${this.tail()}`);
      return found ?? undefined;
    });
  }

  tail(): string {
    return this.said().trimEnd().split('\n').slice(-15).join('\n');
  }

  /** Ends it in order, or by force when it does not go. */
  async stop(): Promise<void> {
    if (this.hasEnded) return;
    this.child.kill(this.#stopSignal);
    const late = new AbortController();
    const force = pause(STOP_WITHIN_MS, undefined, { signal: late.signal }).then(
      () => void this.child.kill('SIGKILL'),
      () => undefined,
    );
    await this.ended;
    late.abort();
    await force;
  }
}

export class Stage implements AsyncDisposable {
  /** A folder of its own; every parent lets others through, as containers need. */
  readonly folder: string;
  /** Aborted when the bench is told to stop. */
  readonly signal: AbortSignal;
  readonly #undo: (() => Promise<void>)[] = [];
  readonly #say: (line: string) => void;

  constructor(signal: AbortSignal, say: (line: string) => void) {
    this.signal = signal;
    this.#say = say;
    this.folder = mkdtempSync(join(tmpdir(), 'runmesh-bench-'));
    chmodSync(this.folder, 0o711);
    this.#undo.push(() => this.#removeFolder());
  }

  /** Starts a program that lives until the row is over or `stop` is called. */
  start(
    name: string,
    file: string,
    args: readonly string[],
    options: ProgramOptions = {},
  ): Program {
    this.signal.throwIfAborted();
    const logFile = join(this.folder, `${name}.log`);
    const log = openSync(logFile, 'a');
    const [first, ...rest] = isProgram(SETPRIV)
      ? [SETPRIV, '--pdeathsig', 'TERM', '--', file, ...args]
      : [file, ...args];
    const child = spawn(first, rest, {
      cwd: options.cwd ?? this.folder,
      env: options.env ?? process.env,
      stdio: options.ipc ? ['ignore', log, log, 'ipc'] : ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    const program = new Program(name, child, logFile, options.stopSignal ?? 'SIGTERM');
    this.#undo.push(() => program.stop());
    return program;
  }

  /** Has `step` done when the row is over. */
  defer(step: () => Promise<void>): void {
    this.#undo.push(step);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const step of this.#undo.splice(0).reverse()) {
      await step().catch((thrown: unknown) => this.#say(`could not be undone: ${String(thrown)}`));
    }
  }

  async #removeFolder(): Promise<void> {
    const mounts = mountsBelow(this.folder);
    for (const point of mounts.toReversed()) await command('umount', [point]);
    if (mounts.length > 0) this.#say(`left mounted, and unmounted here: ${mounts.join(' ')}`);
    if (mountsBelow(this.folder).length > 0) throw new Error(`still mounted below ${this.folder}`);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((point) => point.startsWith(`${folder}/`));
}

/** Looks every few milliseconds until `look` finds something. */
export async function waitFor<T>(
  what: string,
  withinMs: number,
  signal: AbortSignal,
  look: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const until = performance.now() + withinMs;
  for (;;) {
    signal.throwIfAborted();
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > until) throw new Error(`waited ${withinMs} ms for ${what}`);
    await pause(LOOK_EVERY_MS, undefined, { signal });
  }
}

/** A port of loopback that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** CPU time that a process has used so far, all threads that it still has. */
export function cpuMsOf(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  // The first number is nanoseconds on a CPU; `stat` would count in ticks of 10 ms.
  const spentNs = threads.map((thread) =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]),
  );
  return spentNs.reduce((sum, ns) => sum + ns, 0) / 1e6;
}
