// What is due when: one entry per key, on the monotonic clock. A binary heap whose stale entries are skipped, so that
// setting a key again costs O(log n).

interface Entry {
  at: number;
  key: string;
}

/** Stale entries that are not worth a clean-up. */
const SLACK = 64;

export class Agenda {
  readonly #due = new Map<string, number>();
  readonly #heap: Entry[] = [];

  /** Sets when `key` is due; undefined takes it off. */
  set(key: string, at: number | undefined): void {
    if (at === undefined) {
      this.#due.delete(key);
      return;
    }
    if (this.#due.get(key) === at) return;
    this.#due.set(key, at);
    this.#push({ at, key });
    if (this.#heap.length > 2 * this.#due.size + SLACK) this.#compact();
  }

  /** When the next key is due. */
  next(): number | undefined {
    this.#skipStale();
    return this.#heap[0]?.at;
  }

  /** Takes off and gives every key that is due by `now`, earliest first. */
  popDue(now: number): string[] {
    const keys: string[] = [];
    for (;;) {
      this.#skipStale();
      const top = this.#heap[0];
      if (!top || top.at > now) return keys;
      this.#due.delete(top.key);
      this.#pop();
      keys.push(top.key);
    }
  }

  #skipStale(): void {
    for (let top = this.#heap[0]; top && this.#due.get(top.key) !== top.at; top = this.#heap[0])
      this.#pop();
  }

  /** A key that is moved on with every event leaves a stale entry each time: they must not pile up. */
  #compact(): void {
    this.#heap.length = 0;
    for (const [key, at] of this.#due) this.#push({ at, key });
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (!above || above.at <= entry.at) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const left = heap[child];
      const right = heap[child + 1];
      if (!left) break;
      if (right && right.at < left.at) child += 1;
      const least = heap[child];
      if (!least || least.at >= last.at) break;
      heap[at] = least;
      at = child;
    }
    heap[at] = last;
  }
}
