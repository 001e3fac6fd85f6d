// The real host: util-linux, iproute2, nftables and attr as child processes, /proc and cgroupfs by hand.
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../shared/clock.ts';
import { attributeText } from './attributes.ts';
import { cgroupTable, type CgroupTable } from './cgroup-table.ts';
import { programOnPath, runCommand } from './command.ts';
import type {
  DeviceNode,
  Host,
  HostAbilities,
  OverlayMount,
  PathAttributes,
  RunnerCgroup,
  RunnerNetwork,
} from './host.ts';
import { mountsUnder, mountTable } from './mount-table.ts';
import { dataFolderTag } from './network-plan.ts';
import { mountOverlayWith } from './overlay.ts';
import { LinuxCgroup } from './runner-cgroup.ts';
import { RunnerNetworks } from './runner-networks.ts';

export interface LinuxHostOptions {
  /** Absolute; names of kernel objects derive from it. */
  dataFolder: string;
  clock: Clock;
}

export class LinuxHost implements Host {
  readonly #dataFolder: string;
  readonly #clock: Clock;
  readonly #networks: RunnerNetworks;
  #table: Promise<CgroupTable | { no: string }> | undefined;

  constructor(options: LinuxHostOptions) {
    this.#dataFolder = options.dataFolder;
    this.#clock = options.clock;
    this.#networks = new RunnerNetworks(options.dataFolder, (program, args, input, signal) =>
      this.#run(program, args, { input: input ?? '', signal }),
    );
  }

  async abilities(): Promise<HostAbilities> {
    const table = await this.#cgroupTable();
    const noContainers = whyNot(['mount', 'umount', 'mknod', 'mkfifo', 'setfattr']);
    const noNetworks = whyNot(['ip', 'nft']);
    const noCgroups = 'no' in table ? table.no : whyNot([]);
    return {
      containers: noContainers === undefined ? { yes: true } : { yes: false, no: noContainers },
      networks: noNetworks === undefined ? { yes: true } : { yes: false, no: noNetworks },
      cgroups:
        noCgroups !== undefined || 'no' in table
          ? { yes: false, no: noCgroups ?? 'no cgroups' }
          : { yes: true, version: table.version },
    };
  }

  async mountOverlay(mount: OverlayMount, signal?: AbortSignal): Promise<void> {
    await mountOverlayWith(mount, (args, cwd) => this.#run('mount', args, { cwd, signal }));
  }

  async bindMount(source: string, target: string, readOnly: boolean): Promise<void> {
    await this.#run('mount', ['--bind', source, target]);
    if (!readOnly) return;
    try {
      await this.#run('mount', ['-o', 'remount,bind,ro', target]);
    } catch (thrown) {
      await this.unmount(target); // Never leave writable what was to be read-only.
      throw thrown;
    }
  }

  async unmount(target: string): Promise<void> {
    const isMounted = async (): Promise<boolean> =>
      (await mountTable()).some((entry) => entry.target === target);
    while (await isMounted()) {
      await this.#run('umount', [target]).catch(async (thrown: unknown) => {
        // Busy for a moment (a process that just ends): detached now, freed when its last user goes.
        if (await isMounted())
          await this.#run('umount', ['--lazy', target]).catch(() => raise(thrown));
      });
    }
  }

  async makeDevices(nodes: readonly DeviceNode[], signal?: AbortSignal): Promise<void> {
    for (const node of nodes) {
      const mode = `--mode=${node.mode.toString(8)}`;
      if (node.kind === 'fifo') await this.#run('mkfifo', [mode, '--', node.path], { signal });
      else {
        const kind = node.kind === 'char' ? 'c' : 'b';
        const numbers = [String(node.major), String(node.minor)];
        await this.#run('mknod', [mode, '--', node.path, kind, ...numbers], { signal });
      }
      await chmod(node.path, node.mode);
    }
  }

  async setAttributes(paths: readonly PathAttributes[], signal?: AbortSignal): Promise<void> {
    if (paths.length === 0) return;
    const input = attributeText(paths);
    await this.#run('setfattr', ['--no-dereference', '--restore=-'], { cwd: '/', input, signal });
  }

  async openNetwork(): Promise<void> {
    await this.#networks.open();
  }

  attach(runnerId: string, signal?: AbortSignal): Promise<RunnerNetwork> {
    return this.#networks.attach(runnerId, signal);
  }

  detach(runnerId: string): Promise<void> {
    return this.#networks.detach(runnerId);
  }

  async cgroup(runnerId: string): Promise<RunnerCgroup | undefined> {
    return this.#cgroupAt(`${this.#cgroupBase()}/${runnerId}`);
  }

  async sweep(): Promise<void> {
    // cgroups first: what lives there holds mounts and namespaces.
    if ((await this.abilities()).cgroups.yes) {
      await (await this.#cgroupAt(this.#cgroupBase()))?.remove();
    }
    for (const target of await mountsUnder(join(this.#dataFolder, 'run')))
      await this.unmount(target);
    if ((await this.abilities()).networks.yes) await this.#networks.close();
  }

  #cgroupBase(): string {
    return `/runmesh-${dataFolderTag(this.#dataFolder)}`;
  }

  async #cgroupAt(path: string): Promise<RunnerCgroup | undefined> {
    const table = await this.#cgroupTable();
    return 'no' in table || whyNot([]) !== undefined
      ? undefined
      : new LinuxCgroup(path, table, this.#clock);
  }

  #cgroupTable(): Promise<CgroupTable | { no: string }> {
    this.#table ??= mountTable().then(cgroupTable);
    return this.#table;
  }

  async #run(
    program: string,
    args: readonly string[],
    options: { cwd?: string; input?: string; signal?: AbortSignal | undefined } = {},
  ): Promise<string> {
    return (await runCommand(program, args, { clock: this.#clock, ...options })).stdout;
  }
}

/** Why privileged work with these programs cannot be done, for people. */
function whyNot(programs: readonly string[]): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  const missing = programs.filter((name) => programOnPath(name) === undefined);
  return missing.length === 0 ? undefined : `not found on PATH: ${missing.join(', ')}`;
}

function raise(thrown: unknown): never {
  throw thrown;
}
