// Where the cgroup hierarchies of this machine are, from its mount table: one (v2), or one per controller (v1; on a
// hybrid machine the controllers are in v1 and the unified hierarchy has none).
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MountEntry } from './mount-table.ts';

export type CgroupTable =
  | { version: 2; root: string }
  /** Mount point of each controller. */
  | { version: 1; roots: ReadonlyMap<string, string> };

const NEEDED = ['cpu', 'memory', 'pids'];

/** @returns why not, when this machine has no hierarchy with cpu, memory and pids */
export function cgroupTable(mounts: readonly MountEntry[]): CgroupTable | { no: string } {
  const unified = mounts.find((entry) => entry.type === 'cgroup2')?.target;
  if (unified !== undefined) {
    const file = join(unified, 'cgroup.controllers');
    const has = existsSync(file) ? readFileSync(file, 'utf8').trim().split(' ') : [];
    if (NEEDED.every((name) => has.includes(name))) return { version: 2, root: unified };
  }
  const roots = new Map<string, string>();
  for (const entry of mounts.filter(({ type }) => type === 'cgroup')) {
    for (const option of entry.options) {
      if (['rw', 'ro', 'xattr'].includes(option)) continue;
      if (!roots.has(option)) roots.set(option, entry.target);
    }
  }
  const missing = NEEDED.filter((name) => !roots.has(name));
  if (missing.length > 0) return { no: `no cgroup controller ${missing.join(', ')}` };
  return { version: 1, roots };
}
