// The line that says where figures come from: they mean nothing without it.
import { statfsSync } from 'node:fs';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  /** Of the folder in which everything ran. */
  readonly disk: string;
  readonly node: string;
}

/** This machine, as seen from `folder`. */
export function machineAt(folder: string): Machine {
  const [first] = cpus();
  return {
    cpu: first?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    disk: `${diskOf(folder)} (${Math.round(freeGiB(folder))} GiB free)`,
    node: process.version,
  };
}

export function describeMachine(machine: Machine): string {
  const { cpu, cores, memoryGiB, kernel, disk, node } = machine;
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB, Linux ${kernel}, ${disk}, Node ${node}`;
}

function freeGiB(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return (bavail * bsize) / 2 ** 30;
}

/** Type and device of the file system that holds `folder`: the longest mount point above it. */
function diskOf(folder: string): string {
  let best = { point: '', text: 'unknown' };
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [device = '', point = '', type = ''] = line.split(' ');
    const isAbove =
      folder === point || folder.startsWith(point.endsWith('/') ? point : `${point}/`);
    if (isAbove && point.length >= best.point.length)
      best = { point, text: `${type} on ${device}` };
  }
  return best.text;
}
