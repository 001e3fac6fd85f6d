// The cgroup of one runner: limits, members, the end of all members, out-of-memory. Both hierarchies (cgroups(7)).
// The path lies right below the root, as Docker's cgroupfs driver has it: not below our own service, which would
// have to leave its own cgroup first, and whose end would take the runners with it (A2).
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sleep, type Clock } from '../../shared/clock.ts';
import { Failure, systemCode } from '../../shared/failure.ts';
import type { CgroupTable } from './cgroup-table.ts';
import type { CgroupLimits, RunnerCgroup } from './host.ts';

const PERIOD_US = 100_000;
/** How long killed processes may take to be gone: a process in the middle of a device call needs its time. */
const GONE_WITHIN_MS = 5_000;

export class LinuxCgroup implements RunnerCgroup {
  readonly path: string;
  readonly #table: CgroupTable;
  readonly #clock: Clock;

  /** `path` begins with a slash and is relative to each hierarchy's root. */
  constructor(path: string, table: CgroupTable, clock: Clock) {
    this.path = path;
    this.#table = table;
    this.#clock = clock;
  }

  async make(limits: CgroupLimits): Promise<void> {
    if (this.#table.version === 2) await this.#enableControllers(this.#table.root);
    for (const folder of this.#folders()) await mkdir(folder, { recursive: true });
    const files = this.#table.version === 2 ? limitsOf2(limits) : limitsOf1(limits);
    for (const [controller, name, value] of files) {
      const file = join(this.#folder(controller), name);
      // Swap accounting is a choice of the kernel's command line: without it there is no such file.
      if (existsSync(file)) await writeFile(file, value);
    }
  }

  async join(pid: number): Promise<void> {
    for (const folder of this.#folders()) await writeFile(join(folder, 'cgroup.procs'), `${pid}\n`);
  }

  members(): number[] {
    const seen = new Set<number>();
    for (const folder of this.#folders()) membersBelow(folder, seen);
    return [...seen];
  }

  async kill(): Promise<void> {
    const until = this.#clock.elapsed() + GONE_WITHIN_MS;
    for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
      const members = this.members();
      if (members.length === 0) return;
      if (this.#clock.elapsed() > until) {
        throw new Failure(
          'HOST_COMMAND_FAILED',
          `cgroup ${this.path}: ${members.length} processes do not end`,
        );
      }
      const killFile = this.#table.version === 2 ? join(this.#folder(''), 'cgroup.kill') : '';
      if (killFile !== '' && existsSync(killFile)) await writeFile(killFile, '1');
      // A3: membership of a cgroup that only we fill is the proof. One that forks is met in the next round.
      else for (const pid of this.members()) killQuietly(pid);
      await sleep(this.#clock, pauseMs);
    }
  }

  outOfMemory(): boolean {
    const v2 = this.#table.version === 2;
    const file = join(this.#folder('memory'), v2 ? 'memory.events' : 'memory.oom_control');
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0) > 0;
  }

  async remove(): Promise<void> {
    await this.kill();
    for (const folder of this.#allFolders()) await removeBelow(folder, this.#clock);
  }

  #folder(controller: string): string {
    if (this.#table.version === 2) return join(this.#table.root, this.path);
    return join(this.#table.roots.get(controller) ?? '/sys/fs/cgroup/missing', this.path);
  }

  /** The folders that we fill: one, or those of the controllers with limits. */
  #folders(): string[] {
    const controllers = this.#table.version === 2 ? [''] : ['cpu', 'memory', 'pids'];
    return [...new Set(controllers.map((name) => this.#folder(name)))];
  }

  /** Also those that runc makes in every v1 hierarchy. */
  #allFolders(): string[] {
    if (this.#table.version === 2) return [this.#folder('')];
    const unified = '/sys/fs/cgroup/unified';
    const roots = [...new Set(this.#table.roots.values()), unified];
    return roots.map((root) => join(root, this.path)).filter((folder) => existsSync(folder));
  }

  /** v2: a controller works in a folder only when every folder above hands it down. */
  async #enableControllers(root: string): Promise<void> {
    const above = this.path.split('/').slice(1, -1);
    let folder = root;
    for (const name of ['', ...above]) {
      folder = join(folder, name);
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, 'cgroup.subtree_control'), '+cpu +memory +pids');
    }
  }
}

type LimitFile = [controller: string, name: string, value: string];

function limitsOf1({ memoryBytes, cpu, processes }: CgroupLimits): LimitFile[] {
  const files: LimitFile[] = [['pids', 'pids.max', String(processes)]];
  if (memoryBytes !== undefined) {
    files.push(['memory', 'memory.limit_in_bytes', String(memoryBytes)]);
    files.push(['memory', 'memory.memsw.limit_in_bytes', String(memoryBytes)]);
  }
  if (cpu !== undefined) {
    files.push(['cpu', 'cpu.cfs_period_us', String(PERIOD_US)]);
    files.push(['cpu', 'cpu.cfs_quota_us', String(Math.round(cpu * PERIOD_US))]);
  }
  return files;
}

function limitsOf2({ memoryBytes, cpu, processes }: CgroupLimits): LimitFile[] {
  const files: LimitFile[] = [['', 'pids.max', String(processes)]];
  if (memoryBytes !== undefined) {
    files.push(['', 'memory.max', String(memoryBytes)], ['', 'memory.swap.max', '0']);
  }
  if (cpu !== undefined) files.push(['', 'cpu.max', `${Math.round(cpu * PERIOD_US)} ${PERIOD_US}`]);
  return files;
}

function membersBelow(folder: string, into: Set<number>): void {
  let text: string;
  try {
    text = readFileSync(join(folder, 'cgroup.procs'), 'utf8');
  } catch (thrown) {
    if (['ENOENT', 'ENODEV', 'ENOTDIR'].includes(systemCode(thrown) ?? '')) return;
    throw thrown;
  }
  for (const line of text.split('\n')) if (line !== '') into.add(Number(line));
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) membersBelow(join(folder, entry.name), into);
  }
}

function killQuietly(pid: number): void {
  try {
    if (pid > 1) process.kill(pid, 'SIGKILL');
  } catch (thrown) {
    if (systemCode(thrown) !== 'ESRCH') throw thrown;
  }
}

/** cgroup folders go by rmdir alone, children first; a dying member keeps one busy for a moment. */
async function removeBelow(folder: string, clock: Clock): Promise<void> {
  if (!existsSync(folder)) return;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeBelow(join(folder, entry.name), clock);
  }
  for (let tries = 0; ; tries += 1) {
    try {
      await rmdir(folder);
      return;
    } catch (thrown) {
      const code = systemCode(thrown);
      if (code === 'ENOENT') return;
      if (code !== 'EBUSY' || tries === 50) throw thrown;
      await sleep(clock, 10);
    }
  }
}
