// Container Device Interface specs, as nvidia-ctk writes them to /etc/cdi: what a container needs to use a GPU. We
// read and merge them ourselves, so that no patched runtime runs on the host (survives the toolkit's CVEs).
//   G1  Only hooks known to be safe are kept, and none sees an environment that the image could have filled
//       (CVE-2025-23266 was LD_PRELOAD from an image, in `enable-cuda-compat`).
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { Failure } from '../../shared/failure.ts';
import type { GrantedGpu } from './driver.ts';

const deviceNode = z.object({
  path: z.string(),
  hostPath: z.string().optional(),
  permissions: z.string().optional(),
});

const mount = z.object({
  hostPath: z.string(),
  containerPath: z.string(),
  type: z.string().optional(),
  options: z.array(z.string()).optional(),
});

const hook = z.object({
  hookName: z.string(),
  path: z.string(),
  args: z.array(z.string()).optional(),
});

const edits = z.object({
  env: z.array(z.string()).optional(),
  deviceNodes: z.array(deviceNode).optional(),
  mounts: z.array(mount).optional(),
  hooks: z.array(hook).optional(),
  additionalGids: z.array(z.number().int()).optional(),
});

const cdiSpec = z.object({
  kind: z.string(),
  containerEdits: edits.optional(),
  devices: z.array(z.object({ name: z.coerce.string(), containerEdits: edits.optional() })),
});

export type CdiSpec = z.infer<typeof cdiSpec>;
export type CdiMount = z.infer<typeof mount>;

export interface CdiHook {
  /** OCI's name of the moment. */
  moment: string;
  path: string;
  args: string[];
}

/** What a container gets on top for its GPUs. Device numbers are looked up later. */
export interface GpuEdits {
  env: string[];
  devices: { path: string; hostPath: string; permissions: string }[];
  mounts: CdiMount[];
  hooks: CdiHook[];
  additionalGids: number[];
}

export const CDI_FOLDERS: readonly string[] = ['/etc/cdi', '/var/run/cdi'];

/** G1: links, the linker cache, and a proc file that hides other GPUs. */
const SAFE_HOOKS = ['create-symlinks', 'update-ldcache', 'disable-device-node-modification'];
const HOOK_PROGRAMS = ['nvidia-cdi-hook', 'nvidia-ctk'];

/** @throws Failure CONFIG_INVALID naming the file */
export function parseCdi(text: string, file: string): CdiSpec {
  try {
    return cdiSpec.parse(parse(text)); // YAML holds JSON.
  } catch (cause) {
    throw new Failure('CONFIG_INVALID', `${file} is not a CDI specification`, { cause });
  }
}

/** The specs for GPUs on this machine; a later folder wins over an earlier one (CDI's precedence). */
export async function readCdi(folders: readonly string[]): Promise<CdiSpec[]> {
  const specs: CdiSpec[] = [];
  for (const folder of folders.toReversed()) {
    const names = await readdir(folder).catch(() => []);
    for (const name of names.sort((a, b) => (a < b ? -1 : 1))) {
      if (!/\.(ya?ml|json)$/.test(name)) continue;
      const spec = parseCdi(await readFile(join(folder, name), 'utf8'), join(folder, name));
      if (spec.kind === 'nvidia.com/gpu') specs.push(spec);
    }
  }
  return specs;
}

/** Edits for the granted GPUs, by UUID or else by index; undefined when the specs lack one of them. */
export function mergeCdi(
  specs: readonly CdiSpec[],
  gpus: readonly GrantedGpu[],
): GpuEdits | undefined {
  const chosen = new Map<CdiSpec, z.infer<typeof edits>[]>();
  for (const gpu of gpus) {
    const named = (name: string) => (spec: CdiSpec) => spec.devices.some((at) => at.name === name);
    const byUuid = specs.find(named(gpu.uuid));
    const name = byUuid === undefined ? String(gpu.index) : gpu.uuid;
    const spec = byUuid ?? specs.find(named(name));
    if (spec === undefined) return undefined;
    const list = chosen.get(spec) ?? [spec.containerEdits ?? {}];
    list.push(spec.devices.find((device) => device.name === name)?.containerEdits ?? {});
    chosen.set(spec, list);
  }
  return joined([...chosen.values()].flat());
}

function joined(list: readonly z.infer<typeof edits>[]): GpuEdits {
  const all: GpuEdits = { env: [], devices: [], mounts: [], hooks: [], additionalGids: [] };
  for (const one of list) {
    all.env.push(...(one.env ?? []));
    all.mounts.push(...(one.mounts ?? []));
    all.additionalGids.push(...(one.additionalGids ?? []));
    all.hooks.push(...(one.hooks ?? []).flatMap(safeHook));
    for (const node of one.deviceNodes ?? []) {
      const hostPath = node.hostPath ?? node.path;
      const device = { path: node.path, hostPath, permissions: node.permissions ?? 'rwm' };
      if (!all.devices.some((known) => known.path === node.path)) all.devices.push(device);
    }
  }
  return all;
}

/** The hook when it is one that we know (G1), else nothing. */
function safeHook({ hookName, path, args = [] }: z.infer<typeof hook>): CdiHook[] {
  const isProgram = path.startsWith('/') && HOOK_PROGRAMS.includes(basename(path));
  const verb = args[1] === 'hook' ? args[2] : args[1];
  const isSafe = hookName === 'createContainer' && SAFE_HOOKS.includes(verb ?? '');
  return isProgram && isSafe ? [{ moment: hookName, path, args }] : [];
}

/** Without CDI: the device nodes alone. The image must bring the driver's libraries itself. */
export function plainGpuEdits(gpus: readonly GrantedGpu[]): GpuEdits {
  const shared = ['nvidiactl', 'nvidia-uvm', 'nvidia-uvm-tools', 'nvidia-modeset'];
  const own = gpus.map((gpu) => `nvidia${gpu.minor}`);
  const devices = [...own, ...shared].map((name) => ({
    path: `/dev/${name}`,
    hostPath: `/dev/${name}`,
    permissions: 'rw',
  }));
  return { env: [], devices, mounts: [], hooks: [], additionalGids: [] };
}
