// A disk that survives the coordinator, takes its time, fails when told to, and forgets unsynced writes at a power cut: the
// latest ones first, as a write-ahead log does. The store on it is the real in-memory one.
import { Failure } from '../../shared/failure.ts';
import { MemoryDisk, openMemoryStore } from '../../coordinator/store/memory-store.ts';
import type { Batch, Durability, Store } from '../../coordinator/store/store.ts';
import type { Clock } from '../../shared/clock.ts';
import type { Draw } from './draw.ts';

export interface DiskWatch {
  /** A batch reaches the disk: what was there and what comes. */
  write(key: string, before: Uint8Array | undefined, after: Uint8Array | undefined): void;
}

export class SimDisk {
  readonly memory = new MemoryDisk();
  readonly #clock: Clock;
  readonly #draw: Draw;
  readonly #watch: DiskWatch;
  /** What each write since the last sync replaced. */
  #unsynced: { key: string; before: Uint8Array | undefined }[][] = [];
  /** Negative control: says `done` before anything is written. */
  readonly #lies: boolean;
  /** Chance of a commit to fail. */
  failing = 0;
  /** Times that everything takes. */
  slowness = 1;
  /** The commit under way. */
  #underWay: { batches: readonly Batch[]; durability: Durability } | undefined;

  constructor(clock: Clock, draw: Draw, watch: DiskWatch, lies: boolean) {
    this.#clock = clock;
    this.#draw = draw;
    this.#watch = watch;
    this.#lies = lies;
  }

  /** A store for one life of the coordinator; dead as soon as that is. */
  open(isAlive: () => boolean): Store {
    const inner = openMemoryStore(this.memory);
    let [dead, order] = [false, 0];
    const pause = (atMostMs: number): Promise<void> =>
      new Promise((done) => {
        order = Math.max(order, this.#clock.elapsed() + this.#draw.below(atMostMs));
        this.#clock.after(order - this.#clock.elapsed(), () => isAlive() && done());
      });
    return {
      get: (key) => inner.get(key),
      getMany: async (keys) => {
        const found = await inner.getMany(keys);
        if (this.#draw.happens(0.5)) await pause(3 * this.slowness);
        return found;
      },
      scan: (range, options) => inner.scan(range, options),
      acquire: (partitions, holder, now) => inner.acquire(partitions, holder, now),
      close: () => inner.close(),
      commit: async (batches, durability) => {
        if (dead) throw new Failure('STORE_FAILED', 'the disk is dead');
        this.#underWay = { batches, durability };
        if (!this.#lies) await pause((durability === 'sync' ? 8 : 2) * this.slowness);
        this.#underWay = undefined;
        const fails = this.#draw.happens(this.failing);
        if (!fails || this.#draw.happens(0.5)) {
          if (this.#lies)
            this.#clock.after(40, () => isAlive() && this.#write(batches, durability));
          else this.#write(batches, durability);
        }
        await inner.commit(this.#lies ? [] : batches, durability);
        if (!fails) return;
        dead = true;
        throw new Failure('STORE_FAILED', 'the disk refused a write', { cause: new Error('EIO') });
      },
    };
  }

  get isBusy(): boolean {
    return this.#underWay !== undefined;
  }

  /** Between two lives: nobody has it open; at a power cut what was not synced may be gone. */
  restart(powerCut: boolean): void {
    this.memory.open = false;
    const cut = this.#underWay;
    this.#underWay = undefined;
    if (cut && this.#draw.happens(0.5)) this.#write(cut.batches, 'soft');
    const kept = powerCut ? this.#draw.below(this.#unsynced.length + 1) : this.#unsynced.length;
    for (const batch of this.#unsynced.splice(Math.floor(kept)).reverse())
      for (const { key, before } of batch.reverse())
        if (before) this.memory.entries.set(key, before);
        else this.memory.entries.delete(key);
    this.#unsynced = [];
  }

  #write(batches: readonly Batch[], durability: Durability): void {
    const undo: { key: string; before: Uint8Array | undefined }[] = [];
    for (const { operations } of batches)
      for (const one of operations) {
        const before = this.memory.entries.get(one.key);
        const after = one.kind === 'put' ? one.value : undefined;
        undo.push({ key: one.key, before });
        this.#watch.write(one.key, before, after);
        if (after) this.memory.entries.set(one.key, after.slice());
        else this.memory.entries.delete(one.key);
      }
    if (durability === 'sync') this.#unsynced = [];
    else this.#unsynced.push(undo);
  }
}
