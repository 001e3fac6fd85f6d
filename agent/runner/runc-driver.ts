// Runs an image in a container: overlay, network, bundle, conmon + runc, each stage undone when a later one fails.
//   A3  SIGTERM goes through runc after the main process is proven to be the one we started; SIGKILL goes to the
//       members of the runner's own cgroup.
import { existsSync } from 'node:fs';
import { chmod, chown, lstat, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import type { Host, RunnerCgroup, RunnerNetwork } from '../host/host.ts';
import { mountRootfs } from '../image/rootfs.ts';
import { bundleConfig } from './bundle.ts';
import { CDI_FOLDERS } from './cdi.ts';
import { Container, endConmon } from './container.ts';
import type { Driver, Running, RunnerSource, RunnerSpec } from './driver.ts';
import { bundleGpus } from './gpu-devices.ts';
import { identify } from './process-identity.ts';
import { removeRunFolder, runnersIn } from './run-folder.ts';
import { conmonPaths, Runc } from './runc.ts';
import { Stages } from './stages.ts';
import { containerUser } from './user.ts';

export interface RuncDriverOptions {
  host: Host;
  /** Absolute; the driver uses `run/runc` and `runc` below it. */
  dataFolder: string;
  clock: Clock;
  cdiFolders?: readonly string[];
}

const OPEN_FILES = 65_536;

type ImageSource = Extract<RunnerSource, { kind: 'image' }>;

export class RuncDriver implements Driver {
  readonly name = 'runc';
  readonly #host: Host;
  readonly #runFolder: string;
  readonly #clock: Clock;
  readonly #runc: Runc;
  readonly #cdiFolders: readonly string[];

  constructor(options: RuncDriverOptions) {
    this.#host = options.host;
    this.#clock = options.clock;
    this.#runFolder = join(options.dataFolder, 'run', 'runc');
    this.#runc = new Runc(join(options.dataFolder, 'runc'), options.clock);
    this.#cdiFolders = options.cdiFolders ?? CDI_FOLDERS;
  }

  async unavailable(): Promise<string | undefined> {
    const { containers, networks, cgroups } = await this.#host.abilities();
    for (const ability of [containers, networks, cgroups]) if (!ability.yes) return ability.no;
    return this.#runc.missing();
  }

  async start(spec: RunnerSpec, signal: AbortSignal): Promise<Running> {
    const no = await this.unavailable();
    if (no !== undefined) throw new Failure('DRIVER_UNAVAILABLE', `no containers here: ${no}`);
    if (spec.source.kind !== 'image') {
      throw new Failure('DRIVER_UNAVAILABLE', 'containers are made from images alone');
    }
    return await this.#start(spec, spec.source, signal);
  }

  async #start(spec: RunnerSpec, source: ImageSource, signal: AbortSignal): Promise<Running> {
    const { id } = spec;
    const folder = join(this.#runFolder, id);
    const paths = conmonPaths(folder);
    const host = this.#host;
    const cgroup = await this.#cgroup(id);
    const stages = new Stages(signal);
    await stages.run(
      'folder',
      () => makeFolders(folder),
      () => removeRunFolder(host, folder),
    );
    const rootfs = join(folder, 'rootfs');
    const [, network] = await stages.together(
      {
        name: 'root file system',
        work: () => this.#mountRoot(folder, source, signal),
        undo: () => host.unmount(rootfs),
      },
      {
        name: 'network',
        work: () => host.attach(id, signal),
        undo: () => host.detach(id),
      },
    );
    await stages.run('bundle', () => this.#writeBundle(spec, source, folder, network, cgroup));
    const pid = await stages.run(
      'create',
      () => this.#runc.create(id, paths),
      () => this.#destroy(id, folder, cgroup),
    );
    const identity = await stages.run('identity', async () => {
      const found = await identify(pid);
      if (found === undefined) throw new Error('the main process ended before its start');
      await writeFile(join(folder, 'process.json'), JSON.stringify(found));
      return found;
    });
    await stages.run('start', () => this.#runc.start(id));
    return new Container({
      ...{ id, identity, paths, cgroup, clock: this.#clock, runc: this.#runc },
      address: { host: network.address, port: spec.port },
      free: () => this.#free(id, folder, cgroup),
    });
  }

  async sweep(): Promise<void> {
    if ((await this.unavailable()) !== undefined) return;
    const ids = new Set([...(await this.#runc.list()), ...(await runnersIn(this.#runFolder))]);
    for (const id of ids) await this.#free(id, join(this.#runFolder, id), await this.#cgroup(id));
  }

  async #mountRoot(folder: string, source: ImageSource, signal: AbortSignal): Promise<void> {
    const { layerFolders } = source;
    const rootfs = await mountRootfs({ host: this.#host, folder, layerFolders }, signal);
    // Many minimal images have none, and nearly every program wants one.
    const temporary = join(rootfs.path, 'tmp');
    if ((await lstat(temporary).catch(() => undefined)) === undefined) {
      await mkdir(temporary);
      await chmod(temporary, 0o1777);
    }
  }

  async #writeBundle(
    spec: RunnerSpec,
    source: ImageSource,
    folder: string,
    network: RunnerNetwork,
    cgroup: RunnerCgroup,
  ): Promise<void> {
    const at = (name: string): string => join(folder, name);
    const user = await containerUser(at('rootfs'), source.image.config.user);
    await chown(at('data'), user.uid, user.gid);
    const etc = { resolvConf: at('resolv.conf'), hosts: at('hosts'), hostname: at('hostname') };
    await writeFile(etc.resolvConf, network.resolvConf);
    await writeFile(etc.hosts, `127.0.0.1 localhost\n${network.address} ${spec.id}\n`);
    await writeFile(etc.hostname, `${spec.id}\n`);
    const config = bundleConfig({
      ...{ spec, source, user, etc, rootfs: at('rootfs'), dataFolder: at('data') },
      namespacePath: network.namespacePath,
      cgroupsPath: cgroup.path,
      gpus: await bundleGpus(spec.gpus, this.#cdiFolders),
      hasSwap: await hasSwap(),
      openFiles: await openFiles(),
      architecture: process.arch,
    });
    await writeFile(at('config.json'), JSON.stringify(config), { mode: 0o600 });
  }

  /** Ends the container and its conmon; the mounts and the network stay. */
  async #destroy(id: string, folder: string, cgroup: RunnerCgroup): Promise<void> {
    await cgroup.kill();
    await this.#runc.delete(id);
    await endConmon(conmonPaths(folder), this.#clock);
    await cgroup.remove();
  }

  async #free(id: string, folder: string, cgroup: RunnerCgroup): Promise<void> {
    await this.#destroy(id, folder, cgroup);
    await this.#host.detach(id);
    await removeRunFolder(this.#host, folder);
  }

  async #cgroup(id: string): Promise<RunnerCgroup> {
    const cgroup = await this.#host.cgroup(id);
    if (cgroup === undefined) throw new Failure('DRIVER_UNAVAILABLE', 'no cgroups on this machine');
    return cgroup;
  }
}

async function makeFolders(folder: string): Promise<void> {
  if (existsSync(folder)) throw new Error('there is such a runner already');
  await mkdir(folder, { recursive: true, mode: 0o711 });
  for (const name of ['data', 'exits', 'persist', 'sockets']) {
    await mkdir(join(folder, name));
    await chmod(join(folder, name), 0o755);
  }
}

async function hasSwap(): Promise<boolean> {
  const text = await readFile('/proc/meminfo', 'utf8').catch(() => '');
  return Number(/^SwapTotal:\s+(\d+)/m.exec(text)?.[1] ?? 0) > 0;
}

/** Plenty for a server, and never above our own limit: raising it would need a capability. */
async function openFiles(): Promise<number> {
  const text = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const own = Number(/^Max open files\s+\d+\s+(\d+)/m.exec(text)?.[1] ?? OPEN_FILES);
  return Math.min(OPEN_FILES, own);
}
