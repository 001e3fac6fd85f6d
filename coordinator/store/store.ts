// The seam to the queue's disk: an ordered map of text keys to bytes with one way to write: a batch, fenced by the
// epoch of its partition's owner. Real: level-store.ts; in memory: memory-store.ts; both pass
// test/conformance/store.ts. An engine for several coordinators (PostgreSQL wire protocol) is to pass it later, so batches
// stay ≤ 1 MiB and values ≤ 100 KB where that is ours to choose.
import type { KeyRange } from './keys.ts';

export type Operation =
  { kind: 'put'; key: string; value: Uint8Array } | { kind: 'delete'; key: string };

/** Operations of one partition; `partition` undefined is for the global keys. */
export interface Batch {
  partition: number | undefined;
  /** The epoch that the writer acquired; an older one than the newest is refused (STORE_FENCED). */
  epoch: number;
  operations: readonly Operation[];
}

/** `sync`: on the disk before it resolves (Q1). `soft`: may be lost by a power cut, not by a crash of the process. */
export type Durability = 'sync' | 'soft';

export interface Store {
  get(key: string): Promise<Uint8Array | undefined>;
  /** In the order of `keys`. */
  getMany(keys: readonly string[]): Promise<(Uint8Array | undefined)[]>;
  /** Entries in key order (or reverse), at most `limit`. A scan sees one moment of the store. */
  scan(
    range: KeyRange,
    options?: { limit?: number; reverse?: boolean },
  ): AsyncIterable<[string, Uint8Array]>;
  /**
   * Writes all batches at once or none. Concurrent calls share one write to the disk (group commit).
   *
   * @throws Failure STORE_FENCED (nothing was written), STORE_FAILED (unknown what was written; the store is dead and
   *   must be closed and opened again: survival M7, M8)
   */
  commit(batches: readonly Batch[], durability: Durability): Promise<void>;
  /** Takes ownership of partitions: raises the epoch of each above every earlier one, synced. */
  acquire(partitions: readonly number[], holder: string, now: number): Promise<number>;
  close(): Promise<void>;
}
