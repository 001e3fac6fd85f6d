// Records written by the core and not yet surely on disk. The core must see its own writes at once; the disk shows them later.
// O1: a loader that pinned the overlay before it read the disk finds every write that came after its pin here.

interface Entry {
  value: unknown;
  /** Number of the step that wrote it. */
  step: number;
  /** Number of the last step at the time its commit was done; undefined until then. */
  settledAt: number | undefined;
}

export class Overlay {
  readonly #entries = new Map<string, Entry>();
  readonly #pins = new Map<number, number>();
  /** Committed entries, oldest first, that wait for the pins before them. */
  #settled: { key: string; step: number; settledAt: number }[] = [];
  #clock = 0;

  write(key: string, value: unknown, step: number): void {
    this.#entries.set(key, { value, step, settledAt: undefined });
  }

  /** The value as last written, in `found`; undefined when the overlay knows nothing of the key. */
  find(key: string): { value: unknown } | undefined {
    return this.#entries.get(key);
  }

  /** Every write up to `step` is on disk. */
  settle(keys: Iterable<string>, step: number): void {
    this.#clock += 1;
    for (const key of keys) {
      const entry = this.#entries.get(key);
      if (!entry || entry.step > step) continue;
      entry.settledAt = this.#clock;
      this.#settled.push({ key, step: entry.step, settledAt: this.#clock });
    }
    this.#prune();
  }

  /** Holds back forgetting until released. */
  pin(): () => void {
    this.#clock += 1;
    const at = this.#clock;
    this.#pins.set(at, at);
    return () => {
      if (this.#pins.delete(at)) this.#prune();
    };
  }

  get size(): number {
    return this.#entries.size;
  }

  #prune(): void {
    // Pins are taken in rising order, so the first of the map is the oldest.
    const [oldest] = this.#pins.keys();
    let forgotten = 0;
    for (const { key, step, settledAt } of this.#settled) {
      if (oldest !== undefined && settledAt > oldest) break;
      forgotten += 1;
      if (this.#entries.get(key)?.step === step) this.#entries.delete(key);
    }
    if (forgotten > 0) this.#settled = this.#settled.slice(forgotten);
  }
}
