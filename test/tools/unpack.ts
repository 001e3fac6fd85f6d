// Makes programs from unpacked Debian packages runnable where they lie: finds the libraries that the
// machine lacks and puts a launcher into a bin folder.
//
//   U1  The machine's own libraries win. Only those it lacks are offered, each by a link of its own,
//       so that nothing else of the unpacked tree shadows the system in the program's children.
//   U2  A launcher appears under its name complete, by a rename.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { chmodSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { command, complaint } from './command.ts';
import type { Wanted } from './catalog.ts';

/** Debian's name for this machine's architecture, part of its library folders. */
export const triplet = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';

/** Unpacks package files into `root`, which appears complete or not at all. */
export async function unpack(debs: readonly string[], root: string): Promise<void> {
  const aside = `${root}.part`;
  rmSync(aside, { recursive: true, force: true });
  mkdirSync(aside, { recursive: true });
  for (const deb of debs) {
    const ended = await command('dpkg', ['-x', deb, aside], { timeoutMs: 120_000 });
    if (ended.code !== 0) throw new Error(`dpkg -x ${basename(deb)}: ${complaint(ended)}`);
  }
  renameSync(aside, root);
}

/** Where a launcher goes and what it may draw on. */
export interface Place {
  /** The unpacked tree. */
  readonly root: string;
  readonly binFolder: string;
  /** Gets one folder of links per program. */
  readonly libFolder: string;
}

/** Puts a launcher for `name` into the bin folder, tries it and returns the program's real file. */
export function launch(name: string, wanted: Wanted, place: Place): string {
  const file = wanted.files.map((path) => join(place.root, path)).find((path) => existsSync(path));
  if (file === undefined) throw new Error(`no ${wanted.files.join(' or ')} in its package`);
  const libraries = linkLibraries(file, name, place);
  const fill = (text: string): string =>
    text.replaceAll('{root}', place.root).replaceAll('{triplet}', triplet);
  const prefix = (wanted.prefix ?? []).map(fill);
  const env = Object.entries(wanted.env ?? {}).map(
    ([key, value]) => `${key}=${quote(fill(value))}`,
  );
  if (libraries !== undefined) {
    env.push(`LD_LIBRARY_PATH=${quote(libraries)}\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}`);
  }
  const aside = join(place.binFolder, `.${name}.${process.pid}`);
  rmSync(aside, { force: true });
  if (prefix.length === 0 && env.length === 0 && basename(file) === name) {
    symlinkSync(file, aside);
  } else {
    // $0 keeps its name: some programs (redis-server) choose what they are by it.
    const exports = env.map((assignment) => `export ${assignment}\n`).join('');
    const args = prefix.map((arg) => `${quote(arg)} `).join('');
    const script = `#!/bin/sh\n${exports}exec ${quote(named(file, name, place))} ${args}"$@"\n`;
    writeFileSync(aside, script);
    chmodSync(aside, 0o755);
  }
  renameSync(aside, join(place.binFolder, name));
  return file;
}

/** The file under the program's own name: `sh` cannot set argv[0], so a link carries the name. */
function named(file: string, name: string, place: Place): string {
  if (basename(file) === name) return file;
  const link = join(place.libFolder, name, name);
  mkdirSync(join(place.libFolder, name), { recursive: true });
  rmSync(link, { force: true });
  symlinkSync(file, link);
  return link;
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** Links what the machine lacks into a folder of the program's own (U1); undefined when nothing. */
function linkLibraries(file: string, name: string, place: Place): string | undefined {
  const folder = join(place.libFolder, name);
  rmSync(folder, { recursive: true, force: true });
  // Each round may show libraries that the last round's libraries need.
  for (let round = 0; round < 16; round++) {
    const lacking = lackingLibraries(file, folder);
    if (lacking.length === 0) return existsSync(folder) ? folder : undefined;
    mkdirSync(folder, { recursive: true });
    for (const library of lacking) {
      const found = findLibrary(library, place.root);
      if (found === undefined) throw new Error(`library ${library} is missing`);
      symlinkSync(found, join(folder, library));
    }
  }
  throw new Error('its libraries need each other without end');
}

function lackingLibraries(file: string, folder: string): string[] {
  const env = { ...process.env, LC_ALL: 'C', LD_LIBRARY_PATH: folder };
  const { stdout, stderr } = spawnSync('ldd', [file], { env, encoding: 'utf8', timeout: 20_000 });
  const tooOld = /version `([^']+)' not found/.exec(`${stdout}${stderr}`);
  if (tooOld !== null) throw new Error(`this machine's libraries are too old: no ${tooOld[1]}`);
  return [...stdout.matchAll(/^\s*(\S+) => not found/gm)].map((match) => match[1] ?? '');
}

function findLibrary(library: string, root: string): string | undefined {
  const folders = [`usr/lib/${triplet}`, `lib/${triplet}`, 'usr/lib', 'lib'];
  for (const folder of folders.map((path) => join(root, path))) {
    const direct = join(folder, library);
    if (statSync(direct, { throwIfNoEntry: false }) !== undefined) return direct;
    for (const entry of existsSync(folder) ? readdirSync(folder, { withFileTypes: true }) : []) {
      const below = join(folder, entry.name, library);
      if (entry.isDirectory() && existsSync(below)) return below;
    }
  }
  return undefined;
}
