// The in-memory twin of the store, for tests and the simulator. Its disk can outlive it (`MemoryDisk`), so that a
// restart is a new store over the same disk; soft writes live through that, as through a crash of a process.
import { Failure } from '../../shared/failure.ts';
import { decodeValue, encodeValue } from './codec.ts';
import { Fence } from './fence.ts';
import { GroupCommit } from './group-commit.ts';
import { keys, type KeyRange } from './keys.ts';
import type { OwnerRecord } from './records.ts';
import type { Batch, Durability, Operation, Store } from './store.ts';

/** What stays when the store is closed. */
export class MemoryDisk {
  readonly entries = new Map<string, Uint8Array>();
  open = false;
}

export function openMemoryStore(disk: MemoryDisk = new MemoryDisk()): Store {
  if (disk.open) throw new Failure('STORE_LOCKED', 'another store has this disk open');
  disk.open = true;
  return new MemoryStore(disk);
}

class MemoryStore implements Store {
  readonly #disk: MemoryDisk;
  readonly #fence = new Fence();
  readonly #commit: GroupCommit;
  /** Sorted keys, made when a scan needs them. */
  #order: string[] | undefined;

  constructor(disk: MemoryDisk) {
    this.#disk = disk;
    this.#commit = new GroupCommit(async (operations) => this.#write(operations));
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#alive();
    return this.#disk.entries.get(key);
  }

  async getMany(names: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    this.#alive();
    return names.map((key) => this.#disk.entries.get(key));
  }

  async *scan(
    range: KeyRange,
    options: { limit?: number; reverse?: boolean } = {},
  ): AsyncIterable<[string, Uint8Array]> {
    this.#alive();
    this.#order ??= [...this.#disk.entries.keys()].sort();
    const found = this.#order.filter((key) => key >= range.gte && key < range.lt);
    if (options.reverse) found.reverse();
    const moment = found
      .slice(0, options.limit ?? found.length)
      .map((key) => [key, this.#disk.entries.get(key)] as const);
    for (const [key, value] of moment) if (value) yield [key, value];
  }

  async commit(batches: readonly Batch[], durability: Durability): Promise<void> {
    this.#alive();
    this.#fence.check(batches);
    await this.#commit.commit(
      batches.flatMap((one) => [...one.operations]),
      durability,
    );
  }

  async acquire(partitions: readonly number[], holder: string, now: number): Promise<number> {
    const known = await this.getMany(partitions.map((partition) => keys.owner(partition)));
    const epochs = known.flatMap((bytes) =>
      bytes ? [(decodeValue('owner', bytes) as OwnerRecord).epoch] : [],
    );
    const epoch = this.#fence.next(epochs);
    this.#fence.own(partitions, epoch);
    const value = encodeValue({ epoch, holder, at: now } satisfies OwnerRecord);
    await this.#commit.commit(
      partitions.map((partition): Operation => ({
        kind: 'put',
        key: keys.owner(partition),
        value,
      })),
      'sync',
    );
    return epoch;
  }

  async close(): Promise<void> {
    await this.#commit.settled();
    this.#disk.open = false;
  }

  #alive(): void {
    if (!this.#disk.open) throw new Failure('STORE_FAILED', 'the store is closed');
  }

  #write(operations: Operation[]): void {
    this.#alive();
    this.#order = undefined;
    for (const one of operations) {
      if (one.kind === 'put') this.#disk.entries.set(one.key, one.value.slice());
      else this.#disk.entries.delete(one.key);
    }
  }
}
