// A tree as lines that can be compared: type, mode, owner, time, target, content, names of one file, attributes.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

export interface ListingOptions {
  /** Program; absent: attributes are left out. */
  getfattr?: string;
  /** Paths whose time says nothing. */
  timeless?: ReadonlySet<string>;
}

export function listTree(root: string, options: ListingOptions = {}): string[] {
  const lines: string[] = [];
  const firstNames = new Map<number, string>();
  const walk = (path: string): void => {
    const place = join(root, path);
    const stats = lstatSync(place);
    const parts = [path || '.', (stats.mode & 0o177777).toString(8), `${stats.uid}:${stats.gid}`];
    if (!options.timeless?.has(path)) parts.push(`t${Math.floor(stats.mtimeMs / 1000)}`);
    if (stats.isSymbolicLink()) parts.push(`-> ${readlinkSync(place)}`);
    if (stats.isCharacterDevice() || stats.isBlockDevice()) parts.push(`dev ${stats.rdev}`);
    if (stats.isFile()) {
      parts.push(createHash('sha256').update(readFileSync(place)).digest('hex').slice(0, 16));
      const first = firstNames.get(stats.ino);
      if (first === undefined) firstNames.set(stats.ino, path);
      else parts.push(`= ${first}`);
    }
    if (options.getfattr && !stats.isSymbolicLink())
      parts.push(...attributesOf(options.getfattr, place));
    lines.push(parts.join(' '));
    if (stats.isDirectory())
      for (const name of readdirSync(place).sort()) walk(path === '' ? name : `${path}/${name}`);
  };
  walk('');
  return lines;
}

function attributesOf(getfattr: string, place: string): string[] {
  const text = execFileSync(getfattr, ['-h', '-d', '-m', '-', '-e', 'hex', place], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return text
    .split('\n')
    .filter((line) => line.includes('=') && !/^(?:trusted\.overlay|security\.selinux)/.test(line))
    .sort();
}
