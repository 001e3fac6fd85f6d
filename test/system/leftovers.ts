// What agents leave on a machine: devices, network namespaces, mounts, cgroups, firewall tables and processes that carry
// their names. Empty after an orderly end; a test that looks at it asserts first that it is not empty while they run.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { dataFolderTag, networkNames } from '../../agent/host/network-plan.ts';

const CGROUPS = '/sys/fs/cgroup';

/** Everything that exists because of agents with these data folders, one line each. */
export function leftovers(dataFolders: readonly string[], nft: string): string[] {
  return dataFolders.flatMap((folder) => {
    const tag = dataFolderTag(folder);
    const { bridge, linkPrefix, namespacePrefix, table } = networkNames(tag);
    const links = namesIn('/sys/class/net').filter(
      (name) => name === bridge || name.startsWith(linkPrefix),
    );
    const spaces = namesIn('/run/netns').filter((name) => name.startsWith(namespacePrefix));
    const tables = spawnSync(nft, ['list', 'tables']).stdout.toString().includes(table);
    return [
      ...links.map((name) => `link ${name}`),
      ...spaces.map((name) => `namespace ${name}`),
      ...(tables ? [`firewall table ${table}`] : []),
      ...[folder, tag].flatMap(namedAfter),
    ];
  });
}

/** Mounts, cgroups and processes with `text` in their names: a data folder, its tag, a runner. */
export function namedAfter(text: string): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return [
    ...mounts.filter((line) => line.includes(text)).map((line) => `mount ${line.split(' ')[4]}`),
    ...namesIn('/run/netns').flatMap((name) => (name.includes(text) ? [`namespace ${name}`] : [])),
    ...cgroupsWith(text),
    ...processesWith(text),
  ];
}

function cgroupsWith(text: string): string[] {
  const found = (folder: string, depth: number): string[] =>
    readEntries(folder).flatMap((entry) => {
      if (!entry.isDirectory()) return [];
      const path = join(folder, entry.name);
      if (entry.name.includes(text)) return [`cgroup ${path}`];
      return depth > 0 ? found(path, depth - 1) : [];
    });
  return found(CGROUPS, 4);
}

/** By command line, folder or program; not ourselves. */
function processesWith(text: string): string[] {
  const pids = namesIn('/proc').filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => {
    if (Number(pid) === process.pid) return [];
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
      const places = ['cwd', 'exe'].map((name) => readlinkSync(`/proc/${pid}/${name}`));
      return [command, ...places].some((place) => place.includes(text))
        ? [`process ${pid} ${command.slice(0, 120)}`]
        : [];
    } catch {
      return []; // It ended while we looked, or it is a thread of the kernel.
    }
  });
}

function namesIn(folder: string): string[] {
  return readEntries(folder).map((entry) => entry.name);
}

function readEntries(folder: string) {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    return [];
  }
}
