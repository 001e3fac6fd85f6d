// The seam to the machine: every privileged verb of the agent in one place (mounts, devices, extended attributes,
// network, cgroups), so that it can become a small process of its own. Real: linux-host.ts; in memory: memory-host.ts;
// both pass test/conformance/host.ts. Nothing else in the agent runs a program as root.

/** What this process may do here; a verb that is not possible throws HOST_COMMAND_FAILED with the reason. */
export interface HostAbilities {
  /** Mounts, devices, namespaces: root with the needed programs. `no` says why not, for people. */
  containers: { yes: true } | { yes: false; no: string };
  /** Limits through cgroups, and which hierarchy. */
  cgroups: { yes: true; version: 1 | 2 } | { yes: false; no: string };
  /** Runner networks (bridge, veth, nft). */
  networks: { yes: true } | { yes: false; no: string };
}

export interface OverlayMount {
  /** Read-only folders, topmost first, absolute. */
  lower: readonly string[];
  upper: string;
  work: string;
  target: string;
}

/** Extended attributes of one path, values raw. */
export interface PathAttributes {
  path: string;
  attributes: ReadonlyMap<string, Uint8Array>;
}

export type DeviceNode =
  | { kind: 'char' | 'block'; path: string; major: number; minor: number; mode: number }
  | { kind: 'fifo'; path: string; mode: number };

/** The network of one runner: its own namespace, one veth to the node's bridge. */
export interface RunnerNetwork {
  /** Path of the network namespace, for the OCI bundle. */
  namespacePath: string;
  /** The address that the agent dials. */
  address: string;
  /** A resolv.conf that works inside. */
  resolvConf: string;
}

export interface CgroupLimits {
  memoryBytes?: number;
  /** CPU cores. */
  cpu?: number;
  /** Processes and threads. */
  processes: number;
}

/** The cgroup of one runner. */
export interface RunnerCgroup {
  /** Relative to the root of the hierarchy, as OCI's `cgroupsPath` wants it. */
  readonly path: string;
  make(limits: CgroupLimits): Promise<void>;
  /** Moves a process in; its children are born there. */
  join(pid: number): Promise<void>;
  members(): number[];
  /** Kills every member, until there is none. */
  kill(): Promise<void>;
  /** Whether the kernel has killed a member for want of memory. */
  outOfMemory(): boolean;
  /** Kills what is left and takes the cgroup away; fine when there is none. */
  remove(): Promise<void>;
}

export interface Host {
  abilities(): Promise<HostAbilities>;
  mountOverlay(mount: OverlayMount, signal?: AbortSignal): Promise<void>;
  bindMount(source: string, target: string, readOnly: boolean): Promise<void>;
  /** Unmounts; a target that is not mounted is fine. */
  unmount(target: string): Promise<void>;
  /** Makes device nodes and FIFOs in one go. */
  makeDevices(nodes: readonly DeviceNode[], signal?: AbortSignal): Promise<void>;
  /** Sets extended attributes in one go, without following links. */
  setAttributes(paths: readonly PathAttributes[], signal?: AbortSignal): Promise<void>;
  /** Makes (or finds) the bridge and the firewall of this node; called once before `attach`. */
  openNetwork(): Promise<void>;
  attach(runnerId: string, signal?: AbortSignal): Promise<RunnerNetwork>;
  detach(runnerId: string): Promise<void>;
  /** The handle of a runner's cgroup, which need not exist; undefined where there are no cgroups. */
  cgroup(runnerId: string): Promise<RunnerCgroup | undefined>;
  /** Takes away what earlier lives of this agent left behind: mounts, namespaces, bridge, cgroups. Mounts only below `<data>/run`. */
  sweep(): Promise<void>;
}
