// The fence of a store that lives in one process: who owns each partition, by epoch. A writer with an older epoch is
// refused before anything is written (DESIGN §2 "Partitions and epochs from day one").
import { Failure } from '../../shared/failure.ts';
import type { Batch } from './store.ts';

export class Fence {
  readonly #epochs = new Map<number, number>();
  #newest = 0;

  /** The epoch that the next owner gets: above every earlier one. */
  next(known: Iterable<number>): number {
    for (const epoch of known) this.#newest = Math.max(this.#newest, epoch);
    this.#newest += 1;
    return this.#newest;
  }

  own(partitions: readonly number[], epoch: number): void {
    for (const partition of partitions) this.#epochs.set(partition, epoch);
  }

  /** @throws Failure STORE_FENCED */
  check(batches: readonly Batch[]): void {
    for (const { partition, epoch } of batches) {
      const owner = partition === undefined ? this.#newest : (this.#epochs.get(partition) ?? 0);
      if (epoch !== owner)
        throw new Failure(
          'STORE_FENCED',
          `epoch ${epoch} of partition ${partition ?? 'meta'} is not ${owner}`,
        );
    }
  }
}
