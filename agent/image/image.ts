// An image as the agent uses it: what its config says about running it, and its layers by the digest of their
// unpacked form (diff id), lowest first (image-spec config.md).
import type { Digest } from '../../shared/digest.ts';

export interface ImageConfig {
  /** `NAME=value` lines, verbatim. */
  env: readonly string[];
  entrypoint: readonly string[];
  cmd: readonly string[];
  /** Absolute; `/` when the image names none. */
  workingDir: string;
  /** `user`, `uid`, `user:group`, `uid:gid` or empty for root. */
  user: string;
  stopSignal?: string;
}

export interface ImageLayer {
  /** Digest of the blob in the registry, as compressed there. */
  digest: Digest;
  sizeBytes: number;
  /** Digest of the uncompressed tar. */
  diffId: Digest;
}

export interface Image {
  /** Digest of the manifest for this platform: what the revision pins. */
  digest: Digest;
  config: ImageConfig;
  layers: readonly ImageLayer[];
}
