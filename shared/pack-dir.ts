// A folder as a deterministic tar: the same files give the same bytes and so the same digest, whoever packs them and
// when. Names sorted by their bytes, owners 0, times 0, modes 0644 and 0755. What has no place in an app is refused by
// name, not left out in silence; what `.runmeshignore` names is left out.
import { createHash } from 'node:crypto';
import { lstat, open, readFile, readdir, readlink, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pack, type Pack } from 'tar-stream';
import type { Digest } from './digest.ts';
import { Failure, systemCode } from './failure.ts';
import { parseIgnoreRules, type IgnoreRules } from './ignore-rules.ts';
import { staysInside } from './inner-link.ts';
import { limits } from './limits.ts';

export interface PackedDir {
  digest: Digest;
  sizeBytes: number;
  /** Files, folders and links. */
  entries: number;
}

export interface PackDirOptions {
  /** What to pack. */
  folder: string;
  /** Where the tar goes; removed when packing fails. */
  target: string;
  maxBytes?: number;
}

/** Room of each entry's header in a tar, and what files are rounded up to. */
const BLOCK = 512;
const EPOCH_MS = 0;

/** @throws Failure INPUT_INVALID, INPUT_TOO_LARGE naming the path */
export async function packDir(options: PackDirOptions, signal?: AbortSignal): Promise<PackedDir> {
  const { folder, target, maxBytes = limits.appDirBytes } = options;
  const found = await lstat(folder).catch(() => undefined);
  if (!found?.isDirectory()) throw new Failure('INPUT_INVALID', `dir: ${folder} is no folder`);
  const walk = new Walk(folder, await readRules(folder), maxBytes, signal);
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    await using file = await open(target, 'w', 0o600);
    const tar = pack();
    const filled = walk.fill(tar, '').then(
      () => tar.finalize(),
      (error: unknown) => tar.destroy(error instanceof Error ? error : new Error(String(error))),
    );
    for await (const bytes of tar as AsyncIterable<Uint8Array>) {
      hash.update(bytes);
      sizeBytes += bytes.byteLength;
      await file.writeFile(bytes);
    }
    await filled;
  } catch (error) {
    await rm(target, { force: true });
    throw error;
  }
  return { digest: `sha256:${hash.digest('hex')}`, sizeBytes, entries: walk.entries };
}

class Walk {
  entries = 0;
  readonly #root: string;
  readonly #isIgnored: IgnoreRules;
  readonly #maxBytes: number;
  readonly #signal: AbortSignal | undefined;
  #bytes = 2 * BLOCK;

  constructor(
    root: string,
    isIgnored: IgnoreRules,
    maxBytes: number,
    signal: AbortSignal | undefined,
  ) {
    this.#root = root;
    this.#isIgnored = isIgnored;
    this.#maxBytes = maxBytes;
    this.#signal = signal;
  }

  /** Adds what is in `path` (relative, '' for the root), in order. */
  async fill(tar: Pack, path: string): Promise<void> {
    const names = await readdir(join(this.#root, path));
    for (const name of names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
      this.#signal?.throwIfAborted();
      const at = path === '' ? name : `${path}/${name}`;
      if (name.includes('�')) throw refusal(at, 'has a name that is no UTF-8');
      await this.#add(tar, at);
    }
  }

  async #add(tar: Pack, path: string): Promise<void> {
    const place = join(this.#root, path);
    const stats = await lstat(place);
    if (this.#isIgnored(path, stats.isDirectory())) return;
    const base = { uid: 0, gid: 0, uname: '', gname: '', mtime: new Date(EPOCH_MS) };
    if (stats.isDirectory()) {
      this.#count(path, 0);
      tar.entry({ ...base, name: `${path}/`, type: 'directory', mode: 0o755 });
      return this.fill(tar, path);
    }
    if (stats.isSymbolicLink()) {
      const target = await readlink(place);
      if (!staysInside(path.split('/'), target))
        throw refusal(path, `is a symlink to ${target}, outside of the folder`);
      this.#count(path, 0);
      tar.entry({ ...base, name: path, type: 'symlink', linkname: target, mode: 0o777 });
      return;
    }
    if (!stats.isFile()) throw refusal(path, 'is neither file, folder nor symlink');
    this.#count(path, stats.size);
    const bytes = await readFile(place);
    const mode = (stats.mode & 0o111) === 0 ? 0o644 : 0o755;
    tar.entry({ ...base, name: path, type: 'file', mode, size: bytes.byteLength }, bytes);
  }

  /** Counts before anything is read, so that a folder of terabytes is refused at once. */
  #count(path: string, sizeBytes: number): void {
    this.entries += 1;
    this.#bytes += BLOCK + Math.ceil(sizeBytes / BLOCK) * BLOCK;
    if (this.#bytes > this.#maxBytes)
      throw new Failure(
        'INPUT_TOO_LARGE',
        `dir: with ${path} the folder is over ${this.#maxBytes} bytes; name what is not needed in .runmeshignore`,
        { detail: { field: 'dir', maxBytes: this.#maxBytes } },
      );
  }
}

async function readRules(folder: string): Promise<IgnoreRules> {
  try {
    return parseIgnoreRules(await readFile(join(folder, '.runmeshignore'), 'utf8'));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return parseIgnoreRules('');
    throw error;
  }
}

function refusal(path: string, problem: string): Failure {
  return new Failure('INPUT_INVALID', `dir: ${path} ${problem}`, { detail: { field: 'dir' } });
}
