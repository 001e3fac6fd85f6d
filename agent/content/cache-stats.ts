// Where the bytes of this node's cache came from, counted since the agent started: for `/cache/stats` and metrics.
// Counters only rise.

/** Where a wanted blob was found. Peers join this list when they come. */
export const blobSources = ['local', 'origin'] as const;
export type BlobSource = (typeof blobSources)[number];

export interface SourceCounts {
  /** Blobs that came from here, complete. */
  blobs: number;
  /** Bytes that came from here, also of transfers that broke. */
  bytes: number;
}

export class CacheStats {
  readonly sources: Record<BlobSource, SourceCounts> = {
    local: { blobs: 0, bytes: 0 },
    origin: { blobs: 0, bytes: 0 },
  };
  /** Callers that shared somebody else's fetch. */
  joined = 0;
  /** Tries after a failure. */
  retries = 0;
  /** Fetches that failed for good. */
  failures = 0;
  /** Fetches given up because nobody waited any more. */
  abandoned = 0;

  /** A copy that can be sent. */
  snapshot(): {
    sources: Record<BlobSource, SourceCounts>;
    joined: number;
    retries: number;
    failures: number;
    abandoned: number;
  } {
    const { sources, joined, retries, failures, abandoned } = this;
    return { sources: structuredClone(sources), joined, retries, failures, abandoned };
  }
}
