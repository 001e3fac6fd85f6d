// The packed folders of process apps, unpacked: `apps/<digest hex>/`, one per digest, shared by the runners of an app.
//
//   C2  A folder is visible only when complete: unpacked under `.new-…`, synced, renamed.
//   C4  A pinned folder is never removed.
//
// Runners are asked to leave it as it is; a bare process that writes into it changes it for its siblings.
import { chmod, mkdir, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Chance } from '../../shared/chance.ts';
import { hexOf, isDigest, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { hexOfBytes } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import { UnpackThreads } from '../image/unpack-thread.ts';
import type { ContentStore } from './content-store.ts';
import { diskFailure, removeTree, syncFolder, syncTree } from '../../shared/durable-folder.ts';
import type { BlobFetcher, BlobProgress } from './fetch-blob.ts';
import { Flights } from './flights.ts';
import type { Origin } from './origin.ts';
import { Pins, type Pin } from './pins.ts';

export interface FolderStoreOptions {
  /** The agent's data folder; `apps/` in it belongs to this store alone. */
  dataFolder: string;
  store: ContentStore;
  fetcher: BlobFetcher;
  chance: Chance;
}

export interface WantedFolder {
  /** Of the tar, or of its gzip. */
  digest: Digest;
  sizeBytes?: number;
  origin: Origin;
  progress?: (progress: BlobProgress) => void;
}

export interface UnpackedFolder {
  path: string;
  /** Disposed of when no runner uses the folder. */
  pin: Pin;
  /** Bytes that came from elsewhere. */
  pulledBytes: number;
}

export class FolderStore {
  readonly #folder: string;
  readonly #options: FolderStoreOptions;
  readonly #present = new Set<Digest>();
  readonly #pins = new Pins<Digest>();
  readonly #flights = new Flights<number, BlobProgress>();
  readonly #threads = new UnpackThreads();

  private constructor(options: FolderStoreOptions) {
    this.#options = options;
    this.#folder = join(options.dataFolder, 'apps');
  }

  /** Reads what is there and removes what an interrupted unpack left. */
  static async open(options: FolderStoreOptions): Promise<FolderStore> {
    const store = new FolderStore(options);
    await mkdir(store.#folder, { recursive: true, mode: 0o755 });
    for (const name of await readdir(store.#folder)) {
      const digest = `sha256:${name}`;
      if (name.startsWith('.')) await removeTree(join(store.#folder, name));
      else if (isDigest(digest)) store.#present.add(digest);
    }
    return store;
  }

  has(digest: Digest): boolean {
    return this.#present.has(digest);
  }

  /** @throws Failure of the origin, LAYER_INVALID, DISK_FULL; nothing of the folder stays behind */
  async get(wanted: WantedFolder, signal: AbortSignal): Promise<UnpackedFolder> {
    const { digest } = wanted;
    const pin = this.#pins.pin(digest);
    const path = join(this.#folder, hexOf(digest));
    if (this.has(digest)) return { path, pin, pulledBytes: 0 };
    try {
      const end = await this.#flights.board(
        digest,
        (tell, flight) => this.#unpack({ ...wanted, progress: tell }, path, flight),
        wanted.progress,
        signal,
      );
      if ('failure' in end) throw end.failure;
      return { path, pin, pulledBytes: end.joined ? 0 : end.result };
    } catch (error) {
      pin.release();
      throw error;
    }
  }

  /** Removes a folder; fine when it is not there. @throws Failure CONFLICT while pinned (C4) */
  async remove(digest: Digest): Promise<void> {
    if (this.#pins.has(digest)) throw new Failure('CONFLICT', `folder ${digest} is in use`);
    if (!this.#present.delete(digest)) return;
    const aside = join(this.#folder, `.gone-${this.#draw()}`);
    await rename(join(this.#folder, hexOf(digest)), aside);
    await removeTree(aside);
  }

  async #unpack(wanted: WantedFolder, path: string, signal: AbortSignal): Promise<number> {
    const { store, fetcher } = this.#options;
    const { digest } = wanted;
    using _ = store.pin(digest);
    const maxBytes = limits.appDirBytes;
    const fetched = await fetcher.fetch({ ...wanted, maxBytes }, signal);
    const work = join(this.#folder, `.new-${this.#draw()}`);
    const fs = join(work, 'fs');
    try {
      await mkdir(work, { mode: 0o700 });
      await mkdir(fs, { mode: 0o700 });
      await this.#threads.unpack(
        {
          blobPath: store.path(digest),
          folder: fs,
          policy: 'folder',
          owners: false,
          reserveBytes: limits.diskReserveBytes,
          maxEntries: limits.appDirBytes / 512,
          maxBytes: 4 * limits.appDirBytes,
        },
        signal,
      );
      await chmod(fs, 0o755);
      await syncTree(fs, signal);
      await rename(fs, path);
      await syncFolder(this.#folder);
      this.#present.add(digest);
    } catch (error) {
      throw diskFailure(error, 'an app folder');
    } finally {
      await removeTree(work);
    }
    return fetched.source === 'local' ? 0 : fetched.sizeBytes;
  }

  #draw(): string {
    return hexOfBytes(this.#options.chance.bytes(8, 'folder'));
  }
}
