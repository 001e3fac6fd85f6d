// Runs a command as a bare process: own session, own cgroup where the machine has them, a free port on loopback, a
// copy of the folder to work in. It shares the machine's network, users and files: for trusted apps.
//   A3  A group is signalled only when its leader is proven to be ours; a cgroup and a marked environment prove
//       themselves.
import { spawn, type ChildProcess } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { dirname, join, normalize, resolve as resolvePath } from 'node:path';
import type { Writable } from 'node:stream';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import { programOnPath, runCommand } from '../host/command.ts';
import type { Host, RunnerCgroup } from '../host/host.ts';
import { BareProcess } from './bare-process.ts';
import type { Driver, Running, RunnerSource, RunnerSpec } from './driver.ts';
import { SegmentLog } from './log-file.ts';
import { killMarked, RUNNER_MARK } from './owned-processes.ts';
import { bootId, identify } from './process-identity.ts';
import { removeRunFolder, runnersIn } from './run-folder.ts';
import { Stages } from './stages.ts';

export interface ProcessDriverOptions {
  host: Host;
  /** Absolute; the driver uses `run/process` below it. */
  dataFolder: string;
  clock: Clock;
}

type ProcessSource = Extract<RunnerSource, { kind: 'process' }>;

/**
 * Waits for a word on descriptor 3 before it becomes the command: until then it can be put into its cgroup, so
 * that nothing it starts is ever outside. A fixed text; the command comes as arguments, never as text.
 */
const GATE = 'read -r go <&3 && exec "$@" 3<&-';

export class ProcessDriver implements Driver {
  readonly name = 'process';
  readonly #host: Host;
  readonly #runFolder: string;
  readonly #clock: Clock;

  constructor(options: ProcessDriverOptions) {
    this.#host = options.host;
    this.#clock = options.clock;
    this.#runFolder = join(options.dataFolder, 'run', 'process');
  }

  async unavailable(): Promise<string | undefined> {
    return process.platform === 'linux' ? undefined : `not Linux (this is ${process.platform})`;
  }

  async start(spec: RunnerSpec, signal: AbortSignal): Promise<Running> {
    const { source } = spec;
    if (source.kind !== 'process') {
      throw new Failure('DRIVER_UNAVAILABLE', 'an image cannot run as a bare process');
    }
    const folder = join(this.#runFolder, spec.id);
    const work = join(folder, 'work');
    const cgroup = await this.#host.cgroup(spec.id);
    const stages = new Stages(signal);
    await stages.run(
      'folder',
      () => this.#makeFolder(spec, source, folder, signal),
      () => removeRunFolder(this.#host, folder),
    );
    const port = await stages.run('port', freePort);
    const env = environment(spec, folder, port);
    const file = await stages.run('command', async () => program(source.command[0], work, env));
    if (cgroup !== undefined) {
      const { memoryBytes, cpu } = spec;
      const limited = {
        ...(memoryBytes === undefined ? {} : { memoryBytes }),
        ...(cpu === undefined ? {} : { cpu }),
      };
      await stages.run(
        'cgroup',
        () => cgroup.make({ ...limited, processes: limits.runnerProcesses }),
        () => cgroup.remove(),
      );
    }
    const opened: SegmentLog[] = [];
    const log = await stages.run(
      'log',
      async () => {
        const made = await SegmentLog.open(join(folder, 'log'), limits.logBytes);
        opened.push(made);
        return made;
      },
      async () => {
        for (const made of opened) await made.close();
      },
    );
    const child = spawn('/bin/sh', ['-c', GATE, 'runmesh', file, ...source.command.slice(1)], {
      cwd: work,
      env,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    return await stages.run(
      'start',
      async () => {
        const identity = await this.#open(child, folder, cgroup);
        return new BareProcess({
          ...{ child, identity, cgroup, log, mark: this.#mark(spec.id), clock: this.#clock },
          address: { host: '127.0.0.1', port },
          free: () => this.#free(spec.id, folder, cgroup),
        });
      },
      async () => {
        child.kill('SIGKILL'); // Its own handle: proof enough.
        await this.#end(spec.id, cgroup);
      },
    );
  }

  async sweep(): Promise<void> {
    for (const id of await runnersIn(this.#runFolder)) {
      await this.#free(id, join(this.#runFolder, id), await this.#host.cgroup(id));
    }
  }

  async #makeFolder(
    spec: RunnerSpec,
    source: ProcessSource,
    folder: string,
    signal: AbortSignal,
  ): Promise<void> {
    if (existsSync(folder)) throw new Error('there is such a runner already');
    for (const name of ['', 'data', 'log']) await mkdir(join(folder, name), { recursive: true });
    await linkFiles(spec, join(folder, 'data'));
    // A copy: what one runner writes, the next must not find. Shares blocks where the file system can.
    const args = ['-a', '--reflink=auto', '--', source.folder, join(folder, 'work')];
    await runCommand('cp', args, { clock: this.#clock, timeoutMs: 600_000, signal });
  }

  /** Records the child, puts it into its cgroup and lets it become the command. */
  async #open(child: ChildProcess, folder: string, cgroup: RunnerCgroup | undefined) {
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    const identity = child.pid === undefined ? undefined : await identify(child.pid);
    if (identity === undefined) throw new Error('the process ended before its start');
    await writeFile(join(folder, 'process.json'), JSON.stringify(identity));
    await cgroup?.join(identity.pid);
    const gate = child.stdio[3] as Writable;
    gate.on('error', () => undefined); // It was killed at the gate: its exit tells.
    gate.end('go\n');
    return identity;
  }

  async #free(id: string, folder: string, cgroup: RunnerCgroup | undefined): Promise<void> {
    const record = await readFile(join(folder, 'process.json'), 'utf8').catch(() => '');
    // After a reboot nothing of it can live; its cgroup is gone too.
    if (record === '' || record.includes(await bootId())) await this.#end(id, cgroup);
    await removeRunFolder(this.#host, folder);
  }

  async #end(id: string, cgroup: RunnerCgroup | undefined): Promise<void> {
    if (cgroup !== undefined) await cgroup.remove();
    else await killMarked(this.#mark(id), this.#clock);
  }

  #mark(id: string): string {
    return join(this.#runFolder, id);
  }
}

/** What the process sees of the machine's environment: where programs are, and nothing else. */
function environment(spec: RunnerSpec, folder: string, port: number): Record<string, string> {
  return {
    PATH: process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
    LANG: 'C.UTF-8',
    HOME: folder,
    ...spec.env,
    PORT: String(port),
    RUNMESH_DATA: join(folder, 'data'),
    CUDA_VISIBLE_DEVICES: spec.gpus.map((gpu) => gpu.uuid).join(','),
    [RUNNER_MARK]: folder,
  };
}

/** Files for `/data/…` appear below `$RUNMESH_DATA`; a bare process has no other place that is its own. */
async function linkFiles(spec: RunnerSpec, data: string): Promise<void> {
  for (const { source, target } of spec.files) {
    const path = normalize(target);
    if (!path.startsWith('/data/')) {
      throw new Failure('INPUT_INVALID', `${target}: a process app takes files below /data alone`, {
        detail: { field: 'weights.to' },
      });
    }
    const link = join(data, path.slice('/data/'.length));
    await mkdir(dirname(link), { recursive: true });
    await symlink(source, link);
  }
}

/** The file of the command: looked up on PATH, or relative to the work folder when it holds a slash. */
function program(name: string | undefined, work: string, env: Record<string, string>): string {
  if (name === undefined) throw new Error('the app names no command');
  if (!name.includes('/')) {
    const found = programOnPath(name, env['PATH']);
    if (found === undefined) throw new Error(`${name}: not found on PATH`);
    return found;
  }
  const file = resolvePath(work, name);
  try {
    accessSync(file, constants.X_OK);
  } catch (cause) {
    throw new Error(`${name}: not a program in the app's folder`, { cause });
  }
  return file;
}

/** A port that nobody has now. Another may take it first: then the app fails to listen, and is started again. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise<void>((resolve, reject) => {
    server.once('listening', resolve);
    server.once('error', reject);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
