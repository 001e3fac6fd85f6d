// Bodies above limits.inlineBytes, as files named by what they hold: `payloads/aa/<sha256 hex>`. A record may name a
// digest only after `write` gave it, so what a record names is on the disk.
//
// P1  A file under its name is complete, has that digest and survived fsync; its folder entry too.
// P2  Unfinished bytes live only in `payloads/tmp`, which is emptied at open.
// P3  Two writers of one digest both succeed: the second rename puts equal bytes in place of equal bytes.
// P4  At most `uploadsAtOnce` writes run; one more is refused, never queued, so memory and disk stay bounded.
import { constants } from 'node:fs';
import { mkdir, open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Chance } from '../../shared/chance.ts';
import { Hashing, hexOf, type Digest } from '../../shared/digest.ts';
import { diskFailure, syncFolder } from '../../shared/durable-folder.ts';
import { Failure, asFailure, systemCode } from '../../shared/failure.ts';
import { hexOfBytes } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';

export interface StoredPayload {
  digest: Digest;
  sizeBytes: number;
}

export interface WriteOptions {
  maxBytes: number;
  /** What the bytes are said to be; others are refused with INPUT_INVALID and nothing is kept. */
  expect?: Digest;
}

export interface PayloadStore {
  /**
   * Stores a stream; resolves once it is durable. A stream that throws leaves nothing behind.
   *
   * @throws Failure INPUT_TOO_LARGE, INPUT_INVALID (`expect`), DISK_FULL, UNAVAILABLE (too many at once), or what the
   *   stream threw
   */
  write(stream: AsyncIterable<Uint8Array>, options: WriteOptions): Promise<StoredPayload>;
  has(digest: Digest): Promise<boolean>;
  /** @throws Failure NOT_FOUND at once, not on the first chunk */
  open(digest: Digest): Promise<{ sizeBytes: number; bytes: AsyncIterable<Uint8Array> }>;
}

const READ_BYTES = 256 * 1024;

/** Opens the folder of the payloads, making it and removing what an earlier life left unfinished. */
export async function openPayloadStore(
  folder: string,
  chance: Chance,
  uploadsAtOnce: number = limits.uploadsAtOnce,
): Promise<PayloadStore> {
  const temporary = join(folder, 'tmp');
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true, mode: 0o700 });
  return new FilePayloadStore(folder, temporary, chance, uploadsAtOnce);
}

class FilePayloadStore implements PayloadStore {
  readonly #root: string;
  readonly #temporary: string;
  readonly #chance: Chance;
  readonly #uploadsAtOnce: number;
  #writing = 0;

  constructor(root: string, temporary: string, chance: Chance, uploadsAtOnce: number) {
    this.#root = root;
    this.#temporary = temporary;
    this.#chance = chance;
    this.#uploadsAtOnce = uploadsAtOnce;
  }

  async write(stream: AsyncIterable<Uint8Array>, options: WriteOptions): Promise<StoredPayload> {
    if (this.#writing >= this.#uploadsAtOnce)
      throw new Failure('UNAVAILABLE', `${this.#uploadsAtOnce} bodies are being stored already`);
    this.#writing += 1;
    const path = join(this.#temporary, hexOfBytes(this.#chance.bytes(16, 'payload file')));
    try {
      const hashing = await this.#fill(path, stream, options.maxBytes);
      const stored = { sizeBytes: hashing.sizeBytes, digest: hashing.digest() };
      if (options.expect !== undefined && options.expect !== stored.digest)
        throw new Failure('INPUT_INVALID', `the bytes are ${stored.digest}, not ${options.expect}`);
      await this.#place(path, stored.digest);
      return stored;
    } catch (thrown) {
      await rm(path, { force: true });
      throw diskFailure(thrown, 'a body');
    } finally {
      this.#writing -= 1;
    }
  }

  async has(digest: Digest): Promise<boolean> {
    return stat(this.#pathOf(digest)).then(
      () => true,
      () => false,
    );
  }

  async open(digest: Digest): Promise<{ sizeBytes: number; bytes: AsyncIterable<Uint8Array> }> {
    const path = this.#pathOf(digest);
    const { size } = await stat(path).catch((cause: unknown) => {
      if (systemCode(cause) === 'ENOENT')
        throw new Failure('NOT_FOUND', `no payload ${digest}`, { cause });
      throw asFailure(cause);
    });
    return { sizeBytes: size, bytes: chunksOf(path) };
  }

  async #fill(path: string, stream: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Hashing> {
    const hashing = new Hashing();
    const file = await open(path, 'wx', 0o600);
    try {
      for await (const chunk of stream) {
        hashing.update(chunk);
        if (hashing.sizeBytes > maxBytes)
          throw new Failure('INPUT_TOO_LARGE', `a body may have ${maxBytes} bytes`);
        await writeAll(file, chunk);
      }
      await file.sync();
    } finally {
      await file.close();
    }
    return hashing;
  }

  async #place(from: string, digest: Digest): Promise<void> {
    const folder = join(this.#root, hexOf(digest).slice(0, 2));
    const made = await mkdir(folder, { recursive: true, mode: 0o700 });
    await rename(from, this.#pathOf(digest));
    await syncFolder(folder);
    if (made !== undefined) await syncFolder(this.#root);
  }

  #pathOf(digest: Digest): string {
    const hex = hexOf(digest);
    return join(this.#root, hex.slice(0, 2), hex);
  }
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  let at = 0;
  while (at < chunk.byteLength) {
    const { bytesWritten } = await file.write(chunk, at, chunk.byteLength - at);
    at += bytesWritten;
  }
}

/** Opens the file with the first chunk only: bytes that nobody reads cost no file descriptor. */
async function* chunksOf(path: string): AsyncGenerator<Uint8Array> {
  const file = await open(path, constants.O_RDONLY);
  try {
    for (;;) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(READ_BYTES), 0, READ_BYTES);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
