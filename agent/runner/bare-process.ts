// A bare process that was started: its exit seen by the kernel's word to the parent, its whole family signalled
// through group, cgroup or mark (process-driver.ts A3), freed once.
import type { ChildProcess } from 'node:child_process';
import type { Clock } from '../../shared/clock.ts';
import type { RunnerCgroup } from '../host/host.ts';
import type { Exit, LogSlice, Running } from './driver.ts';
import { exitOf } from './exit-value.ts';
import type { SegmentLog } from './log-file.ts';
import { killMarked, signalQuietly } from './owned-processes.ts';
import { isSameProcess, type ProcessIdentity } from './process-identity.ts';

export interface BareProcessOptions {
  child: ChildProcess;
  identity: ProcessIdentity;
  address: { host: string; port: number };
  cgroup: RunnerCgroup | undefined;
  log: SegmentLog;
  mark: string;
  clock: Clock;
  /** Kills what is left and frees the folder. */
  free: () => Promise<void>;
}

export class BareProcess implements Running {
  readonly address: { host: string; port: number };
  readonly pid: number;
  readonly exited: Promise<Exit>;
  readonly #options: BareProcessOptions;
  #removal: Promise<void> | undefined;

  constructor(options: BareProcessOptions) {
    this.#options = options;
    this.address = options.address;
    this.pid = options.identity.pid;
    const { child, log, cgroup } = options;
    const outputs = [child.stdout, child.stderr].filter((stream) => stream !== null);
    for (const output of outputs) void log.collect(output);
    this.exited = new Promise((resolve) => {
      const end = (code: number | null, signal: string | null): void =>
        resolve(exitOf(code, signal, cgroup?.outOfMemory() ?? false));
      if (child.exitCode !== null || child.signalCode !== null)
        end(child.exitCode, child.signalCode);
      else child.once('exit', end);
    });
  }

  async signal(name: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (this.#removal !== undefined) return;
    const { cgroup, identity, mark, clock } = this.#options;
    if (name === 'SIGKILL') {
      if (cgroup !== undefined) await cgroup.kill();
      else await killMarked(mark, clock);
      return;
    }
    if (await isSameProcess(identity)) signalQuietly(-identity.pid, 'SIGTERM');
  }

  readLog(offset: number, maxBytes: number): Promise<LogSlice> {
    return this.#options.log.read(offset, maxBytes);
  }

  remove(): Promise<void> {
    this.#removal ??= this.#remove().catch((thrown: unknown) => {
      this.#removal = undefined; // May be tried again.
      throw thrown;
    });
    return this.#removal;
  }

  async #remove(): Promise<void> {
    const { cgroup, mark, clock, child, log, free } = this.#options;
    if (cgroup !== undefined) await cgroup.kill();
    else await killMarked(mark, clock);
    await this.exited;
    child.stdout?.destroy();
    child.stderr?.destroy();
    await log.close();
    await free();
  }
}
