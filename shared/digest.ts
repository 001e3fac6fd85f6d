// A sha256 digest as OCI writes it (`sha256:` and 64 lowercase hex digits; image-spec descriptor.md): the name
// of a blob. Parsing is strict, so that a digest can be used as a file name without a second thought.
import { createHash, type Hash } from 'node:crypto';
import { Failure } from './failure.ts';

export type Digest = `sha256:${string}`;

const PATTERN = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: string): text is Digest {
  return PATTERN.test(text);
}

/** @throws Failure INPUT_INVALID naming `field` */
export function parseDigest(text: string, field: string): Digest {
  if (isDigest(text)) return text;
  throw new Failure('INPUT_INVALID', `${field}: expected sha256:<64 hex digits>`, {
    detail: { field },
  });
}

/** The 64 hex digits alone, for file names. */
export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length);
}

export function digestOf(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Hashes while bytes stream past; `digest` may be read once, at the end. */
export class Hashing {
  readonly #hash: Hash = createHash('sha256');
  sizeBytes = 0;

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.sizeBytes += bytes.byteLength;
  }

  digest(): Digest {
    return `sha256:${this.#hash.digest('hex')}`;
  }
}
