// The seam to where blobs come from when no peer has them: an OCI registry (image/registry-origin.ts), plain http(s)
// (weights/https-origin.ts), the coordinator's payload route (content/coordinator-origin.ts), memory (tests).
// All pass test/conformance/origin.ts. Origins give bytes; what they give is verified by the content store (C1).
import type { Readable } from 'node:stream';
import type { Digest } from '../../shared/digest.ts';

/** What is asked for. Where the digest is not known before (a weight file without sha256), it is absent. */
export interface BlobRequest {
  digest?: Digest;
  sizeBytes?: number;
  /** First byte wanted, for a resumed fetch; an origin that cannot seek answers from 0 and says so. */
  offset?: number;
}

export interface BlobStream {
  stream: Readable;
  /** Where `stream` begins. */
  offset: number;
  /** Size of the whole blob where the origin says it. */
  sizeBytes?: number;
}

export interface Origin {
  /** Where, for people and logs: no credentials, no query. */
  readonly name: string;
  /** @throws Failure ORIGIN_UNAVAILABLE, REGISTRY_*, NOT_FOUND, IMAGE_NOT_FOUND, ORIGIN_FORBIDDEN_ADDRESS */
  open(request: BlobRequest, signal: AbortSignal): Promise<BlobStream>;
}
