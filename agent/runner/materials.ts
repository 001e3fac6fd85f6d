// The seam between a runner's life and the bytes it is made of: image, packed folder, weights. Real:
// cached-materials.ts over the content store; tests give their own.
import type { Digest } from '../../shared/digest.ts';
import type { Body } from '../../shared/protocol.ts';
import type { FileMount, RunnerSource } from './driver.ts';

type Order = Body<'startRunner'>;

export interface Progress {
  /** For people: `layers`, `weights`. */
  what: string;
  doneBytes: number;
  totalBytes?: number;
}

/** What was fetched, and held until `release`: nothing of it is evicted meanwhile (C4). */
export interface Material<T> {
  value: T;
  release(): Promise<void>;
}

export interface Materials {
  /** Whether the source needs no byte from elsewhere. */
  isCached(source: Order['source'], signal: AbortSignal): Promise<boolean>;
  source(
    order: Order,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<Material<RunnerSource>>;
  /** `onProgress` is called only when bytes must come from elsewhere. */
  weights(
    order: Order,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<Material<readonly FileMount[]>>;
  /** Images whose layers are unpacked here. */
  images(): readonly Digest[];
}
