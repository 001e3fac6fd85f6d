// What the bench and its load generator say to each other.

/** `count` calls over `concurrency` connections; each connection begins a call when its last one is over. */
export interface LoadJob {
  /**
   * `direct`: POST, answer. `submit`: POST, which answers an id; the status stream to its end; GET of the result. The
   * clock of a call runs from the POST to the last byte of the result.
   */
  readonly kind: 'direct' | 'submit';
  readonly origin: string;
  /** What is POSTed to. */
  readonly path: string;
  readonly count: number;
  readonly concurrency: number;
  /** What every result must contain. */
  readonly expect: string;
}

export interface LoadResult {
  readonly latenciesMs: readonly number[];
  /** From the first call's begin to the last one's end. */
  readonly wallMs: number;
}

export type LoadAnswer =
  | { readonly kind: 'result'; readonly result: LoadResult }
  | { readonly kind: 'failed'; readonly message: string };
