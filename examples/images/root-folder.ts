// A folder that becomes an image layer. The same content gives the same bytes: owners, modes and times are set to fixed
// ones, so that a layer keeps its digest from build to build.
import { chmodSync, copyFileSync, cpSync, existsSync, lutimesSync, mkdirSync } from 'node:fs';
import { lstatSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './run.ts';

/** Every file in a layer is from then, seconds since 1970 UTC (2026-11-22). */
const LAYER_TIME = 1_795_305_600;
export const LAYER_DATE = '2026-11-22T00:00:00Z';

export class RootFolder {
  readonly path: string;

  constructor(path: string) {
    rmSync(path, { recursive: true, force: true });
    mkdirSync(path, { recursive: true });
    this.path = path;
  }

  write(path: string, text: string): void {
    writeFileSync(this.#place(path), text);
  }

  link(path: string, target: string): void {
    symlinkSync(target, this.#place(path));
  }

  folder(path: string): void {
    mkdirSync(join(this.path, path), { recursive: true });
  }

  /** Copies a file, or what a link leads to. */
  file(path: string, from: string): void {
    copyFileSync(realpathSync(from), this.#place(path));
  }

  /** Copies a folder with everything in it that `wanted` (a path below it) agrees to. */
  tree(path: string, from: string, wanted: (below: string) => boolean = () => true): void {
    const filter = (source: string): boolean => wanted(source.slice(from.length + 1));
    cpSync(from, this.#place(path), { recursive: true, filter });
  }

  /** Copies the shared libraries that programs of this machine need to where they look for them, loader included. */
  async librariesOf(programs: readonly string[]): Promise<void> {
    const libraries = new Set<string>();
    for (const program of programs) {
      const printed = await run('ldd', [realpathSync(program)]);
      const missing = /^\s*(\S+) => not found/m.exec(printed)?.[1];
      if (missing) throw new Error(`${program} needs ${missing}, which this machine lacks`);
      for (const [, path] of printed.matchAll(/^\s*(?:\S+ => )?(\/\S+) \(0x/gm)) {
        if (path && !path.startsWith(dirname(realpathSync(program)))) libraries.add(path);
      }
    }
    for (const path of libraries) this.file(path, path);
  }

  /** Fixes modes and times. Call it last. */
  settle(): void {
    settle(this.path);
    const shared = join(this.path, 'tmp');
    if (existsSync(shared)) chmodSync(shared, 0o1777);
  }

  #place(path: string): string {
    const place = join(this.path, path);
    mkdirSync(dirname(place), { recursive: true });
    return place;
  }
}

function settle(path: string): void {
  const stat = lstatSync(path);
  if (stat.isDirectory()) for (const name of readdirSync(path)) settle(join(path, name));
  if (stat.isDirectory()) chmodSync(path, 0o755);
  else if (stat.isFile()) chmodSync(path, stat.mode & 0o111 ? 0o755 : 0o644);
  lutimesSync(path, LAYER_TIME, LAYER_TIME);
}
