// Other names of blobs: `url + etag → digest`. One small JSON file per alias, written aside, synced and renamed: crash
// safe without a database, and a torn or strange file is no alias. An alias only saves a download; losing one loses
// nothing.
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Chance } from '../../shared/chance.ts';
import { digestOf, hexOf, isDigest, type Digest } from '../../shared/digest.ts';
import { hexOfBytes } from '../../shared/ids.ts';
import { diskFailure, syncFolder } from '../../shared/durable-folder.ts';

export class Aliases {
  readonly #folder: string;
  readonly #chance: Chance;

  private constructor(folder: string, chance: Chance) {
    this.#folder = folder;
    this.#chance = chance;
  }

  static async open(options: { folder: string; chance: Chance }): Promise<Aliases> {
    await mkdir(options.folder, { recursive: true, mode: 0o700 });
    return new Aliases(options.folder, options.chance);
  }

  async get(name: string): Promise<Digest | undefined> {
    try {
      const record: unknown = JSON.parse(await readFile(this.#path(name), 'utf8'));
      if (typeof record !== 'object' || record === null) return undefined;
      if (!('name' in record) || record.name !== name || !('digest' in record)) return undefined;
      return typeof record.digest === 'string' && isDigest(record.digest)
        ? record.digest
        : undefined;
    } catch {
      return undefined;
    }
  }

  /** Durable when it returns; a later one of the same name replaces it. */
  async set(name: string, digest: Digest): Promise<void> {
    const aside = join(this.#folder, `.${hexOfBytes(this.#chance.bytes(8, 'alias file'))}`);
    try {
      await using handle = await open(aside, 'wx', 0o600);
      await handle.writeFile(JSON.stringify({ name, digest }));
      await handle.sync();
      await rename(aside, this.#path(name));
      await syncFolder(this.#folder);
    } catch (error) {
      await rm(aside, { force: true });
      throw diskFailure(error, 'an alias');
    }
  }

  #path(name: string): string {
    return join(this.#folder, `${hexOf(digestOf(name))}.json`);
  }
}
