// Group commit: everything that arrived while the last write was syncing goes into the next one. One write is in flight
// at a time; a synced write of a thousand callers costs as much as one (survival M2).
// G1: each caller's promise settles as the write that carried its operations did.
// G2: after a write failed nothing is written any more: what reached the disk is unknown (survival M7, M8).
import { Failure } from '../../shared/failure.ts';
import type { Durability, Operation } from './store.ts';

interface Waiting {
  operations: readonly Operation[];
  durability: Durability;
  done: () => void;
  failed: (failure: Failure) => void;
}

/** More than this many operations go into the write after the next, so that one write stays about 1 MiB. */
const OPERATIONS_PER_WRITE = 2_000;

export class GroupCommit {
  readonly #write: (operations: Operation[], sync: boolean) => Promise<void>;
  #waiting: Waiting[] = [];
  #running: Promise<void> | undefined;
  #broken: Failure | undefined;

  constructor(write: (operations: Operation[], sync: boolean) => Promise<void>) {
    this.#write = write;
  }

  commit(operations: readonly Operation[], durability: Durability): Promise<void> {
    if (this.#broken) return Promise.reject(this.#broken);
    return new Promise((done, failed) => {
      this.#waiting.push({ operations, durability, done, failed });
      this.#running ??= this.#pump();
    });
  }

  /** Resolves when nothing is in flight. */
  async settled(): Promise<void> {
    while (this.#running) await this.#running;
  }

  async #pump(): Promise<void> {
    // Callers of the same turn of the event loop join the first write.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#next();
      const operations = group.flatMap((one) => one.operations as Operation[]);
      try {
        await this.#write(
          operations,
          group.some((one) => one.durability === 'sync'),
        );
        for (const one of group) one.done();
      } catch (cause) {
        this.#broken = new Failure('STORE_FAILED', 'the disk refused a write', { cause });
        for (const one of [...group, ...this.#waiting.splice(0)]) one.failed(this.#broken);
      }
    }
    this.#running = undefined;
  }

  #next(): Waiting[] {
    let count = 0;
    let end = 0;
    while (end < this.#waiting.length && (end === 0 || count < OPERATIONS_PER_WRITE)) {
      count += this.#waiting[end]?.operations.length ?? 0;
      end += 1;
    }
    return this.#waiting.splice(0, end);
  }
}
