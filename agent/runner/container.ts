// A container that was started: watched through conmon's exit file, signalled through runc, freed once.
import { existsSync, watch, type FSWatcher } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sleep, type Clock, type Timer } from '../../shared/clock.ts';
import type { RunnerCgroup } from '../host/host.ts';
import { ConmonLog } from './conmon-log.ts';
import type { Exit, LogSlice, Running } from './driver.ts';
import { exitOfStatus } from './exit-value.ts';
import { signalQuietly } from './owned-processes.ts';
import { identify, isSameProcess, type ProcessIdentity } from './process-identity.ts';
import { exitStatus, type ConmonPaths, type Runc } from './runc.ts';

/** The file watch tells at once; this catches what a watch may lose, and looks at the log. */
const LOOK_EVERY_MS = 1_000;
/** How long conmon may take to write the exit file after the main process is gone. */
const STATUS_WITHIN_MS = 3_000;
const CONMON_ENDS_WITHIN_MS = 2_000;

export interface ContainerOptions {
  id: string;
  identity: ProcessIdentity;
  address: { host: string; port: number };
  paths: ConmonPaths;
  cgroup: RunnerCgroup;
  runc: Runc;
  clock: Clock;
  /** Kills what is left and frees mounts, network and folder. */
  free: () => Promise<void>;
}

export class Container implements Running {
  readonly address: { host: string; port: number };
  readonly pid: number;
  readonly exited: Promise<Exit>;
  readonly #options: ContainerOptions;
  readonly #log: ConmonLog;
  readonly #watcher: FSWatcher;
  #settle: (exit: Exit) => void = () => undefined;
  #timer: Timer | undefined;
  #hasEnded = false;
  #goneSinceMs: number | undefined;
  #removal: Promise<void> | undefined;

  constructor(options: ContainerOptions) {
    this.#options = options;
    this.address = options.address;
    this.pid = options.identity.pid;
    this.#log = new ConmonLog(options.paths.log);
    this.exited = new Promise((resolve) => (this.#settle = resolve));
    this.#watcher = watch(options.paths.exits, { persistent: false }, () => this.#glance());
    this.#watcher.on('error', () => undefined); // The regular look goes on.
    this.#glance();
    this.#tick();
  }

  async signal(name: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (this.#hasEnded || this.#removal !== undefined) return;
    if (name === 'SIGKILL') {
      await this.#options.cgroup.kill();
      return;
    }
    if (!(await isSameProcess(this.#options.identity))) return;
    try {
      await this.#options.runc.terminate(this.#options.id);
    } catch (thrown) {
      // It ended between the look and the call.
      if (await this.#isAlive()) throw thrown;
    }
  }

  readLog(offset: number, maxBytes: number): Promise<LogSlice> {
    return this.#log.read(offset, maxBytes);
  }

  remove(): Promise<void> {
    this.#removal ??= this.#remove().catch((thrown: unknown) => {
      this.#removal = undefined; // May be tried again.
      throw thrown;
    });
    return this.#removal;
  }

  async #remove(): Promise<void> {
    await this.#options.cgroup.kill();
    const until = this.#options.clock.elapsed() + STATUS_WITHIN_MS;
    while (!this.#hasEnded && this.#options.clock.elapsed() < until) {
      await this.#look();
      if (!this.#hasEnded) await sleep(this.#options.clock, 5);
    }
    this.#end({ kind: 'unknown' });
    await this.#log.close();
    await this.#options.free();
  }

  #tick(): void {
    if (this.#hasEnded) return;
    this.#timer = this.#options.clock.after(LOOK_EVERY_MS, () => {
      void Promise.allSettled([this.#look(), this.#log.look()]).then(() => this.#tick());
    });
  }

  /** A look that cannot be had now (no descriptor is free) is had at the next tick. */
  #glance(): void {
    this.#look().catch(() => undefined);
  }

  async #look(): Promise<void> {
    if (this.#hasEnded) return;
    const { id, paths, cgroup, clock } = this.#options;
    const status = await exitStatus(id, paths);
    if (status !== undefined) {
      const outOfMemory = existsSync(join(paths.persist, 'oom')) || cgroup.outOfMemory();
      await this.#log.look();
      this.#end(exitOfStatus(status, outOfMemory));
      return;
    }
    if (await this.#isAlive()) return;
    // Gone without a word: conmon may be about to write, or was killed itself.
    this.#goneSinceMs ??= clock.elapsed();
    if (clock.elapsed() - this.#goneSinceMs > STATUS_WITHIN_MS) this.#end({ kind: 'unknown' });
  }

  #isAlive(): Promise<boolean> {
    return isSameProcess(this.#options.identity);
  }

  #end(exit: Exit): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#timer?.cancel();
    this.#watcher.close();
    this.#settle(exit);
  }
}

/** Waits for conmon to end, as it does after its container; kills one that stays, proven by its command line. */
export async function endConmon(paths: ConmonPaths, clock: Clock): Promise<void> {
  const pid = Number(await readFile(paths.conmonPid, 'utf8').catch(() => '0'));
  const conmon = pid > 1 ? await identify(pid) : undefined;
  if (conmon === undefined) return;
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  const isOurs = line.split('\0').includes(paths.conmonPid);
  if (!isOurs) return;
  const until = clock.elapsed() + CONMON_ENDS_WITHIN_MS;
  while (clock.elapsed() < until) {
    if (!(await isSameProcess(conmon))) return;
    await sleep(clock, 5);
  }
  if (await isSameProcess(conmon)) signalQuietly(pid, 'SIGKILL');
}
