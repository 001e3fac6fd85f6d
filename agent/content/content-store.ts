// The blobs of this node on disk, by digest: `blobs/sha256/ab/<hex>`, 0444, never changed.
//
//   C1  A blob is visible only when complete, verified and durable; see ingest.ts.
//   C4  What is pinned is never removed. Pins are held by what runs, and may be taken before the blob is there.
//
// The names are the truth: the inventory is read from disk at start, and whatever an interrupted ingest left is
// removed then. One agent has the folder open; nothing here locks.
import { createReadStream, type ReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Chance } from '../../shared/chance.ts';
import { Hashing, digestOf, hexOf, isDigest, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { hexOfBytes } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import { removeTree, syncFolder } from '../../shared/durable-folder.ts';
import { Ingest } from './ingest.ts';
import { Pins, type Pin } from './pins.ts';

export interface ContentStoreOptions {
  /** Owned by this store alone; made when missing. */
  folder: string;
  chance: Chance;
  /** Free space that no blob may use. */
  reserveBytes?: number;
}

export interface ContentStats {
  blobs: number;
  bytes: number;
  /** Blobs on their way in. */
  ingesting: number;
}

export class ContentStore {
  readonly #folder: string;
  readonly #chance: Chance;
  readonly #reserveBytes: number;
  readonly #sizes = new Map<Digest, number>();
  readonly #pins = new Pins<Digest>();
  #bytes = 0;
  #ingesting = 0;

  private constructor(options: ContentStoreOptions) {
    this.#folder = options.folder;
    this.#chance = options.chance;
    this.#reserveBytes = options.reserveBytes ?? limits.diskReserveBytes;
  }

  /** Reads the inventory and removes what interrupted ingests left. */
  static async open(options: ContentStoreOptions): Promise<ContentStore> {
    const store = new ContentStore(options);
    const blobs = join(options.folder, 'blobs', 'sha256');
    const ingests = join(options.folder, 'ingest');
    await removeTree(ingests);
    await mkdir(ingests, { recursive: true, mode: 0o700 });
    await mkdir(blobs, { recursive: true, mode: 0o755 });
    for (const shelf of await readdir(blobs)) {
      if (!/^[0-9a-f]{2}$/.test(shelf)) continue;
      for (const name of await readdir(join(blobs, shelf))) {
        const digest = `sha256:${name}`;
        if (!isDigest(digest) || !name.startsWith(shelf)) continue;
        store.#add(digest, (await stat(join(blobs, shelf, name))).size);
      }
    }
    return store;
  }

  get stats(): ContentStats {
    return { blobs: this.#sizes.size, bytes: this.#bytes, ingesting: this.#ingesting };
  }

  has(digest: Digest): boolean {
    return this.#sizes.has(digest);
  }

  /** Undefined when there is no such blob. */
  sizeOf(digest: Digest): number | undefined {
    return this.#sizes.get(digest);
  }

  /** Every blob with its size, in no order. */
  inventory(): IterableIterator<[Digest, number]> {
    return this.#sizes.entries();
  }

  /** The file of a blob, to be mounted or linked, never written. @throws Failure NOT_FOUND */
  path(digest: Digest): string {
    if (!this.has(digest)) throw new Failure('NOT_FOUND', `blob ${digest} is not on this node`);
    return this.#place(digest);
  }

  /** Bytes of a blob, all or from `start` to `end` inclusive. @throws Failure NOT_FOUND */
  open(digest: Digest, range: { start?: number; end?: number } = {}): ReadStream {
    return createReadStream(this.path(digest), { ...range, highWaterMark: 256 * 1024 });
  }

  /** A small blob in memory, checked again. @throws Failure NOT_FOUND, BLOB_TOO_LARGE, DIGEST_MISMATCH */
  async read(digest: Digest, maxBytes: number): Promise<Buffer> {
    const path = this.path(digest);
    if ((this.sizeOf(digest) ?? 0) > maxBytes)
      throw new Failure('BLOB_TOO_LARGE', `blob ${digest} is larger than ${maxBytes} bytes`);
    const bytes = await readFile(path);
    if (digestOf(bytes) !== digest)
      throw new Failure('DIGEST_MISMATCH', `blob ${digest} has changed on the disk of this node`);
    return bytes;
  }

  /** Whether the bytes on disk are still those of the digest (F48). Reads all of them. */
  async verify(digest: Digest, signal: AbortSignal): Promise<boolean> {
    const hashing = new Hashing();
    for await (const bytes of this.open(digest) as AsyncIterable<Uint8Array>) {
      signal.throwIfAborted();
      hashing.update(bytes);
    }
    return hashing.digest() === digest;
  }

  /** Keeps a blob, present or still to come, until the pin is disposed of (C4). */
  pin(digest: Digest): Pin {
    return this.#pins.pin(digest);
  }

  isPinned(digest: Digest): boolean {
    return this.#pins.has(digest);
  }

  /** Opens an ingest; `commit` makes it a blob. @throws Failure DISK_FULL */
  async ingest(options: {
    digest?: Digest;
    sizeBytes?: number;
    maxBytes?: number;
  }): Promise<Ingest> {
    const id = hexOfBytes(this.#chance.bytes(8, 'ingest id'));
    return Ingest.open(join(this.#folder, 'ingest', id), {
      ...options,
      maxBytes: options.maxBytes ?? limits.blobBytes,
      reserveBytes: this.#reserveBytes,
    });
  }

  /** Makes a complete ingest a blob. One that is there already stays as it is. */
  async commit(ingest: Ingest): Promise<{ digest: Digest; sizeBytes: number }> {
    const done = await ingest.commit((digest) => this.#place(digest));
    this.#add(done.digest, done.sizeBytes);
    return done;
  }

  /**
   * Takes in bytes whose digest is checked when given.
   * @throws Failure DIGEST_MISMATCH, BLOB_TOO_LARGE, DISK_FULL; nothing stays behind
   */
  async put(
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: { digest?: Digest; sizeBytes?: number; maxBytes?: number } = {},
    signal?: AbortSignal,
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    this.#ingesting += 1;
    try {
      await using ingest = await this.ingest(options);
      for await (const bytes of source) {
        signal?.throwIfAborted();
        await ingest.write(bytes);
      }
      return await this.commit(ingest);
    } finally {
      this.#ingesting -= 1;
    }
  }

  /** Counts an ingest that somebody else drives. */
  countIngest(): Disposable {
    this.#ingesting += 1;
    return { [Symbol.dispose]: () => void (this.#ingesting -= 1) };
  }

  /** Removes a blob; fine when it is not there. @throws Failure CONFLICT while pinned (C4) */
  async remove(digest: Digest): Promise<void> {
    if (this.isPinned(digest))
      throw new Failure('CONFLICT', `blob ${digest} is in use`, { detail: { digest } });
    const sizeBytes = this.#sizes.get(digest);
    if (sizeBytes === undefined) return;
    this.#sizes.delete(digest);
    this.#bytes -= sizeBytes;
    await rm(this.#place(digest), { force: true });
    await syncFolder(join(this.#place(digest), '..'));
  }

  #place(digest: Digest): string {
    const hex = hexOf(digest);
    return join(this.#folder, 'blobs', 'sha256', hex.slice(0, 2), hex);
  }

  #add(digest: Digest, sizeBytes: number): void {
    if (this.#sizes.has(digest)) return;
    this.#sizes.set(digest, sizeBytes);
    this.#bytes += sizeBytes;
  }
}
