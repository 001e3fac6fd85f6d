// One blob on its way into the store: a file under `ingest/`, hashed while it is written. It becomes a blob by `commit`
// and by nothing else (C1); `discard` or the next start of the agent removes it. One writer, never a lock file.
import { mkdir, open, rename, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Hashing, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { diskFailure, freeBytes, removeTree, syncFolder } from '../../shared/durable-folder.ts';

export interface IngestOptions {
  /** Held against at commit; absent where the origin knows none. */
  digest?: Digest;
  /** Declared size; more is refused at once, fewer at commit. */
  sizeBytes?: number;
  /** Most bytes taken where no size is declared. */
  maxBytes: number;
  /** Free space that must remain. */
  reserveBytes: number;
}

export class Ingest implements AsyncDisposable {
  readonly #folder: string;
  readonly #handle: FileHandle;
  readonly #options: IngestOptions;
  #hashing = new Hashing();
  #state: 'open' | 'committed' | 'discarded' = 'open';

  private constructor(folder: string, handle: FileHandle, options: IngestOptions) {
    this.#folder = folder;
    this.#handle = handle;
    this.#options = options;
  }

  /** @throws Failure DISK_FULL when the declared size does not fit */
  static async open(folder: string, options: IngestOptions): Promise<Ingest> {
    const wanted = options.sizeBytes ?? 0;
    const free = await freeBytes(dirname(folder));
    if (free < wanted + options.reserveBytes)
      throw new Failure('DISK_FULL', `${wanted} bytes are wanted, ${free} are free`, {
        detail: { wantedBytes: wanted, freeBytes: free, reserveBytes: options.reserveBytes },
      });
    try {
      await mkdir(folder);
      return new Ingest(folder, await open(join(folder, 'data'), 'wx', 0o600), options);
    } catch (error) {
      await removeTree(folder);
      throw diskFailure(error, 'a blob');
    }
  }

  /** Bytes taken so far: where a broken transfer goes on. */
  get sizeBytes(): number {
    return this.#hashing.sizeBytes;
  }

  /** @throws Failure BLOB_TOO_LARGE, DISK_FULL; the ingest is then good for nothing but `discard` */
  async write(bytes: Uint8Array): Promise<void> {
    const { sizeBytes, maxBytes } = this.#options;
    const most = Math.min(sizeBytes ?? maxBytes, maxBytes);
    if (this.sizeBytes + bytes.byteLength > most)
      throw new Failure('BLOB_TOO_LARGE', `the blob is larger than ${most} bytes`, {
        detail: { maxBytes: most },
      });
    let at = this.sizeBytes;
    this.#hashing.update(bytes);
    try {
      for (let left = bytes; left.byteLength > 0;) {
        const { bytesWritten } = await this.#handle.write(left, 0, left.byteLength, at);
        left = left.subarray(bytesWritten);
        at += bytesWritten;
      }
    } catch (error) {
      throw diskFailure(error, 'a blob');
    }
  }

  /** Forgets the bytes taken: the origin has something else now. */
  async restart(): Promise<void> {
    this.#hashing = new Hashing();
    await this.#handle.truncate(0);
  }

  /**
   * Checks, makes durable and moves into place: file, rename, folder (C1). `placeOf` names the blob's path.
   * @throws Failure DIGEST_MISMATCH, DISK_FULL
   */
  async commit(
    placeOf: (digest: Digest) => string,
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    const { sizeBytes } = this;
    const digest = this.#hashing.digest();
    const wanted = this.#options.digest;
    if (wanted !== undefined && wanted !== digest)
      throw new Failure('DIGEST_MISMATCH', `asked for ${wanted}, got ${digest}`, {
        detail: { wanted, got: digest },
      });
    try {
      await this.#handle.chmod(0o444);
      await this.#handle.sync();
      await this.#handle.close();
      const place = placeOf(digest);
      const parent = dirname(place);
      if (await mkdir(parent, { recursive: true })) await syncFolder(dirname(parent));
      await rename(join(this.#folder, 'data'), place);
      await syncFolder(parent);
    } catch (error) {
      throw diskFailure(error, 'a blob');
    }
    this.#state = 'committed';
    await removeTree(this.#folder);
    return { digest, sizeBytes };
  }

  /** Removes what was written, unless it became a blob. */
  async discard(): Promise<void> {
    if (this.#state !== 'open') return;
    this.#state = 'discarded';
    await this.#handle.close().catch(() => undefined);
    await removeTree(this.#folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.discard();
  }
}
