// Records as the core last wrote them: those not yet surely on disk, which the core must see at once, and the latest that are,
// which are asked for again within moments (a status stream looks at each change).
// O1: a loader that pinned the overlay before it read the disk finds every write that came after its pin here.
// O2: what is on disk may be forgotten; of it only the latest records are kept, and no bodies.

interface Entry {
  value: unknown;
  /** Number of the step that wrote it. */
  step: number;
  /** It is on disk since then (a count of settles and pins); undefined: not surely. */
  settledAt: number | undefined;
}

/** Settled records that are kept. */
const KEPT = 4_096;

export class Overlay {
  readonly #entries = new Map<string, Entry>();
  readonly #pins = new Set<number>();
  /** Settled entries, oldest first. */
  #settled: { key: string; step: number; settledAt: number }[] = [];
  #clock = 0;
  readonly #kept: number;

  constructor(kept = KEPT) {
    this.#kept = kept;
  }

  write(key: string, value: unknown, step: number): void {
    this.#entries.set(key, { value, step, settledAt: undefined });
  }

  /** The value as last written, in `value`; undefined when the overlay knows nothing of the key. */
  find(key: string): { value: unknown } | undefined {
    return this.#entries.get(key);
  }

  /** As `find`, for those who may only see what is on disk. */
  findSettled(key: string): { value: unknown } | undefined {
    const entry = this.#entries.get(key);
    return entry?.settledAt === undefined ? undefined : entry;
  }

  /** Every write up to `step` is on disk. */
  settle(keys: Iterable<string>, step: number): void {
    this.#clock += 1;
    for (const key of keys) {
      const entry = this.#entries.get(key);
      if (!entry || entry.step > step || entry.settledAt !== undefined) continue;
      entry.settledAt = this.#clock;
      this.#settled.push({ key, step: entry.step, settledAt: this.#clock });
    }
    this.#prune();
  }

  /** Holds back forgetting until released. */
  pin(): () => void {
    this.#clock += 1;
    const at = this.#clock;
    this.#pins.add(at);
    return () => {
      if (this.#pins.delete(at)) this.#prune();
    };
  }

  get size(): number {
    return this.#entries.size;
  }

  #prune(): void {
    // In batches: pruning at each settle would copy the list each time.
    if (this.#settled.length < 2 * this.#kept + 1) return;
    // Pins are taken in rising order, so the first of the set is the oldest.
    const [oldest = Number.POSITIVE_INFINITY] = this.#pins;
    const most = this.#settled.length - this.#kept;
    let forgotten = 0;
    for (const { key, step, settledAt } of this.#settled) {
      if (forgotten === most || settledAt > oldest) break;
      forgotten += 1;
      const entry = this.#entries.get(key);
      if (entry?.step === step) this.#entries.delete(key);
    }
    this.#settled = this.#settled.slice(forgotten);
  }
}
