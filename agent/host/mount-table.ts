// The mounts of this machine as /proc/self/mountinfo tells them (proc_pid_mountinfo(5)).
import { readFile } from 'node:fs/promises';

export interface MountEntry {
  /** Where it is mounted. */
  target: string;
  /** `overlay`, `cgroup2`, … */
  type: string;
  /** Options of the file system, not of the mount. */
  options: readonly string[];
}

/** Reads mountinfo text; targets come unescaped. */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ', 2);
    const target = left?.split(' ')[4];
    const words = right?.split(' ');
    if (target === undefined || words?.[0] === undefined) continue;
    entries.push({
      target: target.replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
      type: words[0],
      options: (words[2] ?? '').split(','),
    });
  }
  return entries;
}

export async function mountTable(): Promise<MountEntry[]> {
  return parseMountTable(await readFile('/proc/self/mountinfo', 'utf8'));
}

/** Targets at or below `folder`, latest mount first: the order in which they can be unmounted. */
export async function mountsUnder(folder: string): Promise<string[]> {
  return (await mountTable())
    .map((entry) => entry.target)
    .filter((target) => target === folder || target.startsWith(`${folder}/`))
    .reverse();
}
