// An origin in memory. Passes test/conformance/origin.ts.
import { Readable } from 'node:stream';
import type { BlobRequest, BlobStream, Origin } from '../../agent/content/origin.ts';
import { digestOf, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';

export class MemoryOrigin implements Origin {
  readonly name = 'memory';
  readonly opened: BlobRequest[] = [];
  readonly #blobs = new Map<Digest, Buffer>();
  /** Runs before each answer. */
  before: ((signal: AbortSignal) => Promise<void>) | undefined;

  constructor(...blobs: Buffer[]) {
    for (const blob of blobs) this.#blobs.set(digestOf(blob), blob);
  }

  async open(request: BlobRequest, signal: AbortSignal): Promise<BlobStream> {
    this.opened.push(request);
    await this.before?.(signal);
    signal.throwIfAborted();
    const { digest, offset = 0 } = request;
    const blob = digest === undefined ? [...this.#blobs.values()][0] : this.#blobs.get(digest);
    if (!blob) throw new Failure('NOT_FOUND', `memory has no ${digest}`);
    const stream = Readable.from(pieces(blob.subarray(offset)));
    return { stream, offset, sizeBytes: blob.byteLength };
  }
}

function* pieces(blob: Buffer): Generator<Buffer> {
  for (let at = 0; at < blob.byteLength; at += 65_536) yield blob.subarray(at, at + 65_536);
}
