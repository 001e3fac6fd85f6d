// The store on LevelDB, through `level`: one process at a time (LevelDB's own lock), group commit, synced batches.
// Settings follow survival §2.4; a failed write leaves a dead store, to be closed and opened again (G2).
import { Level } from 'level';
import { mkdir } from 'node:fs/promises';
import { Failure, systemCode } from '../../shared/failure.ts';
import { decodeValue, encodeValue } from './codec.ts';
import { Fence } from './fence.ts';
import { GroupCommit } from './group-commit.ts';
import { keys, type KeyRange } from './keys.ts';
import type { OwnerRecord } from './records.ts';
import type { Batch, Durability, Operation, Store } from './store.ts';

type Database = Level<string, Uint8Array>;

const SETTINGS = {
  keyEncoding: 'utf8',
  valueEncoding: 'view',
  cacheSize: 64 * 2 ** 20,
  writeBufferSize: 32 * 2 ** 20,
  maxFileSize: 16 * 2 ** 20,
  maxOpenFiles: 4_096,
} as const;

/** @throws Failure STORE_LOCKED, STORE_FAILED */
export async function openLevelStore(folder: string): Promise<Store> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const database: Database = new Level(folder, { ...SETTINGS });
  try {
    await database.open();
  } catch (cause) {
    if (systemCode(cause) === 'LEVEL_LOCKED' || causeCode(cause) === 'LEVEL_LOCKED')
      throw new Failure('STORE_LOCKED', `another process has ${folder} open`, { cause });
    throw new Failure('STORE_FAILED', `cannot open ${folder}`, { cause });
  }
  return new LevelStore(database);
}

function causeCode(thrown: unknown): unknown {
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  return cause instanceof Error && 'code' in cause ? cause.code : undefined;
}

class LevelStore implements Store {
  readonly #database: Database;
  readonly #fence = new Fence();
  readonly #commit: GroupCommit;

  constructor(database: Database) {
    this.#database = database;
    this.#commit = new GroupCommit((operations, sync) => this.#write(operations, sync));
  }

  get(key: string): Promise<Uint8Array | undefined> {
    return this.#database.get(key);
  }

  getMany(names: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    return this.#database.getMany([...names]);
  }

  async *scan(
    range: KeyRange,
    options: { limit?: number; reverse?: boolean } = {},
  ): AsyncIterable<[string, Uint8Array]> {
    const { limit = -1, reverse = false } = options;
    yield* this.#database.iterator({ gte: range.gte, lt: range.lt, limit, reverse });
  }

  async commit(batches: readonly Batch[], durability: Durability): Promise<void> {
    this.#fence.check(batches);
    const [only] = batches;
    const operations =
      batches.length === 1 && only
        ? only.operations
        : batches.flatMap((one) => [...one.operations]);
    await this.#commit.commit(operations, durability);
  }

  async acquire(partitions: readonly number[], holder: string, now: number): Promise<number> {
    const known = await this.getMany(partitions.map((partition) => keys.owner(partition)));
    const epochs = known.flatMap((bytes, at) =>
      bytes ? [(decodeValue(keys.owner(partitions[at] ?? 0), bytes) as OwnerRecord).epoch] : [],
    );
    const epoch = this.#fence.next(epochs);
    this.#fence.own(partitions, epoch);
    const value = encodeValue({ epoch, holder, at: now } satisfies OwnerRecord);
    const operations = partitions.map((partition): Operation => ({
      kind: 'put',
      key: keys.owner(partition),
      value,
    }));
    await this.#commit.commit(operations, 'sync');
    return epoch;
  }

  async close(): Promise<void> {
    await this.#commit.settled();
    await this.#database.close();
  }

  async #write(operations: Operation[], sync: boolean): Promise<void> {
    const batch = operations.map((one) =>
      one.kind === 'put'
        ? ({ type: 'put', key: one.key, value: one.value } as const)
        : ({ type: 'del', key: one.key } as const),
    );
    // `sync` is an option of the LevelDB binding that the common interface does not name.
    const options: { sync: boolean } = { sync };
    await this.#database.batch(batch, options);
  }
}
