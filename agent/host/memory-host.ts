// A host in memory, for tests of what stands on the seam: it keeps book of what was asked for and refuses what the
// real one refuses. Passes test/conformance/host.ts. Mounts show nothing; use it where paths alone matter.
import { Failure } from '../../shared/failure.ts';
import type {
  CgroupLimits,
  DeviceNode,
  Host,
  HostAbilities,
  OverlayMount,
  PathAttributes,
  RunnerCgroup,
  RunnerNetwork,
} from './host.ts';

export class MemoryHost implements Host {
  readonly mounts = new Map<string, OverlayMount | { source: string; readOnly: boolean }>();
  readonly devices: DeviceNode[] = [];
  readonly attributes: PathAttributes[] = [];
  readonly networks = new Map<string, RunnerNetwork>();
  readonly cgroups = new Map<string, CgroupLimits>();
  #nextAddress = 2;

  async abilities(): Promise<HostAbilities> {
    return {
      containers: { yes: true },
      cgroups: { yes: true, version: 2 },
      networks: { yes: true },
    };
  }

  async mountOverlay(mount: OverlayMount, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.mounts.set(mount.target, mount);
  }

  async bindMount(source: string, target: string, readOnly: boolean): Promise<void> {
    this.mounts.set(target, { source, readOnly });
  }

  async unmount(target: string): Promise<void> {
    this.mounts.delete(target);
  }

  async makeDevices(nodes: readonly DeviceNode[], signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.devices.push(...nodes);
  }

  async setAttributes(paths: readonly PathAttributes[], signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.attributes.push(...paths);
  }

  async openNetwork(): Promise<void> {
    // A map needs no bridge.
  }

  async attach(runnerId: string, signal?: AbortSignal): Promise<RunnerNetwork> {
    signal?.throwIfAborted();
    if (this.networks.has(runnerId)) {
      throw new Failure('CONFLICT', `runner ${runnerId} has a network already`);
    }
    const network: RunnerNetwork = {
      namespacePath: `/run/netns/memory-${runnerId}`,
      address: `10.64.${this.#nextAddress >> 8}.${this.#nextAddress & 255}`,
      resolvConf: 'nameserver 1.1.1.1\n',
    };
    this.#nextAddress += 1;
    this.networks.set(runnerId, network);
    return network;
  }

  async detach(runnerId: string): Promise<void> {
    this.networks.delete(runnerId);
  }

  async cgroup(runnerId: string): Promise<RunnerCgroup> {
    const { cgroups } = this;
    const members = new Set<number>();
    return {
      path: `/runmesh-memory/${runnerId}`,
      make: async (limits) => void cgroups.set(runnerId, limits),
      join: async (pid) => void members.add(pid),
      members: () => [...members],
      kill: async () => members.clear(),
      outOfMemory: () => false,
      remove: async () => {
        members.clear();
        cgroups.delete(runnerId);
      },
    };
  }

  async sweep(): Promise<void> {
    this.mounts.clear();
    this.networks.clear();
    this.cgroups.clear();
  }
}
