// From an image's config and a runner's spec to the `config.json` of an OCI bundle (runtime-spec; image-spec
// conversion.md). Pure. What a runner may do is decided here: README.md says why each default is as it is.
//   B1  The image never widens what the runner may do: capabilities, devices, mounts and hooks are ours.
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { CdiHook, CdiMount } from './cdi.ts';
import type { FileMount, RunnerSource, RunnerSpec } from './driver.ts';
import { seccompProfile } from './seccomp.ts';
import type { ContainerUser } from './user.ts';

export interface BundleDevice {
  path: string;
  major: number;
  minor: number;
  permissions: string;
}

export interface BundleGpus {
  uuids: readonly string[];
  env: readonly string[];
  devices: readonly BundleDevice[];
  mounts: readonly CdiMount[];
  hooks: readonly CdiHook[];
  additionalGids: readonly number[];
}

export interface BundleInput {
  spec: RunnerSpec;
  source: Extract<RunnerSource, { kind: 'image' }>;
  user: ContainerUser;
  rootfs: string;
  /** Writable folder that becomes `/data`. */
  dataFolder: string;
  /** Files of ours that appear in `/etc`. */
  etc: { resolvConf: string; hosts: string; hostname: string };
  namespacePath: string;
  cgroupsPath: string;
  gpus?: BundleGpus | undefined;
  /** Whether this machine has swap that must be limited too. */
  hasSwap: boolean;
  openFiles: number;
  /** As Node names it. */
  architecture: string;
}

interface Mount {
  destination: string;
  type: string;
  source: string;
  options: readonly string[];
}

/** Docker's set without NET_RAW, MKNOD, AUDIT_WRITE and SETFCAP. */
export const CAPABILITIES: readonly string[] = [
  ...['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_KILL', 'CAP_SETGID'],
  ...['CAP_SETUID', 'CAP_SETPCAP', 'CAP_NET_BIND_SERVICE', 'CAP_SYS_CHROOT'],
];

const MASKED_PATHS = [
  ...['/proc/acpi', '/proc/asound', '/proc/kcore', '/proc/keys', '/proc/latency_stats'],
  ...['/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/proc/scsi'],
  ...['/sys/firmware', '/sys/devices/virtual/powercap'],
];
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const CPU_PERIOD_US = 100_000;

/** @throws Failure IMAGE_INVALID when neither image nor app names a command */
export function bundleConfig(input: BundleInput) {
  const { spec, user, gpus } = input;
  const set = user.uid === 0 ? CAPABILITIES : [];
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: {
        uid: user.uid,
        gid: user.gid,
        additionalGids: [...user.additionalGids, ...(gpus?.additionalGids ?? [])],
      },
      args: commandOf(input.source),
      env: environment(input),
      cwd: input.source.image.config.workingDir || '/',
      capabilities: {
        bounding: CAPABILITIES,
        effective: set,
        permitted: set,
        inheritable: [],
        ambient: [],
      },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: input.openFiles, soft: input.openFiles }],
      noNewPrivileges: true,
      oomScoreAdj: 100, // Before the agent, when the whole machine is short of memory.
    },
    root: { path: input.rootfs, readonly: false },
    hostname: spec.id,
    mounts: mounts(input),
    ...(gpus === undefined ? {} : { hooks: hooks(gpus) }),
    annotations: { 'io.runmesh.app': spec.app, 'io.runmesh.runner': spec.id },
    linux: {
      namespaces: [
        ...['pid', 'ipc', 'uts', 'mount', 'cgroup'].map((type) => ({ type })),
        { type: 'network', path: input.namespacePath },
      ],
      cgroupsPath: input.cgroupsPath,
      devices:
        gpus?.devices.map(({ path, major, minor }) => ({
          ...{ type: 'c', path, major, minor, fileMode: 0o666, uid: 0, gid: 0 },
        })) ?? [],
      resources: resources(input),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS,
      seccomp: seccompProfile(input.architecture),
      rootfsPropagation: 'private',
    },
  };
}

function commandOf({ image, command }: BundleInput['source']): readonly string[] {
  const args = command ?? [...image.config.entrypoint, ...image.config.cmd];
  if (args.length > 0) return args;
  throw new Failure('IMAGE_INVALID', 'the image names no command, and the app names none either');
}

/** The image's lines, then what the GPUs need, then the app's, then ours: the last one of a name wins (B1). */
function environment({ spec, source, user, gpus }: BundleInput): string[] {
  const values = new Map<string, string>([['PATH', PATH]]);
  if (user.home !== undefined) values.set('HOME', user.home);
  const take = (lines: readonly string[]): void => {
    for (const line of lines) {
      const at = line.indexOf('=');
      if (at > 0) values.set(line.slice(0, at), line.slice(at + 1));
    }
  };
  take(source.image.config.env);
  take(gpus?.env ?? []);
  for (const [name, value] of Object.entries(spec.env)) values.set(name, value);
  values.set('PORT', String(spec.port));
  values.set('NVIDIA_VISIBLE_DEVICES', gpus?.uuids.join(',') ?? 'void');
  return [...values].map(([name, value]) => `${name}=${value}`);
}

function mounts({ spec, dataFolder, etc, gpus }: BundleInput): Mount[] {
  const shm = spec.memoryBytes === undefined ? [] : [`size=${Math.floor(spec.memoryBytes / 2)}`];
  const closed = ['nosuid', 'noexec', 'nodev'];
  const pts = ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'];
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: closed },
    of('/dev', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    of('/dev/pts', 'devpts', pts),
    of('/dev/shm', 'tmpfs', [...closed, 'mode=1777', ...shm]),
    of('/dev/mqueue', 'mqueue', closed),
    of('/sys', 'sysfs', [...closed, 'ro']),
    of('/sys/fs/cgroup', 'cgroup', [...closed, 'relatime', 'ro']),
    bind(etc.resolvConf, '/etc/resolv.conf', true),
    bind(etc.hosts, '/etc/hosts', true),
    bind(etc.hostname, '/etc/hostname', true),
    bind(dataFolder, '/data', false),
    ...spec.files.map((file: FileMount) => bind(file.source, file.target, file.readOnly)),
    ...(gpus?.mounts ?? []).map((mount) => ({
      destination: mount.containerPath,
      type: mount.type ?? 'bind',
      source: mount.hostPath,
      options: mount.options ?? ['ro', 'nosuid', 'nodev', 'rbind'],
    })),
  ];
}

function of(destination: string, type: string, options: readonly string[]): Mount {
  return { destination, type, source: type, options };
}

function bind(source: string, destination: string, readOnly: boolean): Mount {
  const options = ['rbind', 'nosuid', 'nodev', 'rprivate', readOnly ? 'ro' : 'rw'];
  return { destination, type: 'bind', source, options };
}

function resources({ spec, gpus, hasSwap }: BundleInput) {
  const { memoryBytes, cpu } = spec;
  const memory = memoryBytes === undefined ? undefined : { limit: memoryBytes };
  return {
    // runc adds null, zero, full, random, urandom, tty and ptmx by itself.
    devices: [
      { allow: false, access: 'rwm' },
      ...(gpus?.devices ?? []).map(({ major, minor, permissions }) => ({
        ...{ allow: true, type: 'c', major, minor, access: permissions },
      })),
    ],
    pids: { limit: limits.runnerProcesses },
    ...(memory === undefined
      ? {}
      : { memory: hasSwap ? { ...memory, swap: memory.limit } : memory }),
    ...(cpu === undefined
      ? {}
      : { cpu: { quota: Math.round(cpu * CPU_PERIOD_US), period: CPU_PERIOD_US } }),
  };
}

/** Hooks get an environment of their own: without one, runc's helper would hand on the image's (cdi.ts G1). */
function hooks(
  gpus: BundleGpus,
): Record<string, { path: string; args: string[]; env: string[] }[]> {
  const byMoment: Record<string, { path: string; args: string[]; env: string[] }[]> = {};
  for (const { moment, path, args } of gpus.hooks) {
    (byMoment[moment] ??= []).push({ path, args, env: [`PATH=${PATH}`] });
  }
  return byMoment;
}
