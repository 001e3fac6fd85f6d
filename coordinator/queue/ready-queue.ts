// The order of one app's waiting requests of one priority: first in, first out by enqueue sequence (Q4). The whole queue is
// on disk; memory holds a window of its head, refilled by scans. A retry comes back with its old sequence, so it can go in
// anywhere.
// W1: every queued entry with a sequence ≤ `#cursor` is in the window; the others are on disk behind it.
// W2: `depth` counts all entries, in the window or not.
import type { RequestId } from '../../shared/ids.ts';

export interface QueueEntry {
  sequence: number;
  requestId: RequestId;
}

/** Entries kept in memory, and how few of them ask for a refill. */
export const WINDOW = 256;
const LOW = 64;

interface Scan {
  /** What was queued or taken away while the disk was read: the scan may or may not have seen it. */
  late: QueueEntry[];
  gone: Set<number>;
  /** Late entries from this sequence on were not remembered; they are on disk. */
  forgotFrom: number;
}

export class ReadyQueue {
  #window: QueueEntry[] = [];
  #cursor = 0;
  #scan: Scan | undefined;
  depth: number;

  /** `depth` entries are on disk; `head` are the first of them. */
  constructor(depth = 0, head: readonly QueueEntry[] = []) {
    this.depth = depth;
    this.#window = [...head];
    this.#cursor = head.at(-1)?.sequence ?? 0;
    if (head.length === depth) this.#cursor = Number.POSITIVE_INFINITY;
  }

  /** The next to be dispatched, as far as memory knows. */
  get head(): QueueEntry | undefined {
    return this.#window[0];
  }

  /** A new or a returning entry. */
  add(entry: QueueEntry): void {
    this.depth += 1;
    if (entry.sequence <= this.#cursor) this.#insert(entry);
    else this.#scan?.late.push(entry);
    this.#trim();
  }

  /** Takes the head away. */
  take(): QueueEntry | undefined {
    const entry = this.#window.shift();
    if (entry) this.depth -= 1;
    if (entry) this.#scan?.gone.add(entry.sequence);
    return entry;
  }

  /** Takes an entry away wherever it is; the caller knows that it is queued. */
  remove(sequence: number): void {
    this.depth -= 1;
    this.#window = this.#window.filter((entry) => entry.sequence !== sequence);
    if (!this.#scan) return;
    this.#scan.gone.add(sequence);
    this.#scan.late = this.#scan.late.filter((entry) => entry.sequence !== sequence);
  }

  /** Where a scan must begin, when one is needed now; it is then under way until `refill`. */
  beginScan(): { afterSequence: number; limit: number } | undefined {
    if (this.#scan || this.#window.length >= LOW || this.#window.length >= this.depth)
      return undefined;
    this.#scan = { late: [], gone: new Set(), forgotFrom: Number.POSITIVE_INFINITY };
    return { afterSequence: this.#cursor, limit: WINDOW };
  }

  /** What the scan found, in order; `complete`: there was nothing behind it. */
  refill(entries: readonly QueueEntry[], complete: boolean): void {
    const scan = this.#scan;
    if (!scan) return;
    this.#scan = undefined;
    const known = new Set(this.#window.map((entry) => entry.sequence));
    const found = new Map<number, QueueEntry>();
    for (const entry of [...entries, ...scan.late])
      if (
        !scan.gone.has(entry.sequence) &&
        !known.has(entry.sequence) &&
        entry.sequence < scan.forgotFrom
      )
        found.set(entry.sequence, entry);
    const seen = complete ? Number.POSITIVE_INFINITY : (entries.at(-1)?.sequence ?? this.#cursor);
    this.#cursor = Math.max(this.#cursor, Math.min(seen, scan.forgotFrom - 1));
    const within = [...found.values()].filter((entry) => entry.sequence <= this.#cursor);
    this.#window = [...this.#window, ...within].sort((a, b) => a.sequence - b.sequence);
    this.#trim();
  }

  /** How many are ahead of this entry. Exact in the window; behind it the gaps that cancels left count too. */
  ahead(entry: QueueEntry): number {
    const at = this.#window.findIndex((one) => one.sequence === entry.sequence);
    if (at >= 0) return at;
    const first = this.#window[0]?.sequence ?? entry.sequence;
    return Math.max(0, Math.min(this.depth - 1, entry.sequence - first));
  }

  #insert(entry: QueueEntry): void {
    let at = this.#window.length;
    while (at > 0 && (this.#window[at - 1]?.sequence ?? 0) > entry.sequence) at -= 1;
    this.#window.splice(at, 0, entry);
  }

  #trim(): void {
    if (this.#window.length > 2 * WINDOW) {
      this.#window.length = WINDOW;
      this.#cursor = this.#window.at(-1)?.sequence ?? 0;
    }
    const late = this.#scan?.late;
    if (this.#scan && late && late.length > WINDOW) {
      late.sort((a, b) => a.sequence - b.sequence);
      this.#scan.forgotFrom = Math.min(
        this.#scan.forgotFrom,
        late[WINDOW]?.sequence ?? Number.POSITIVE_INFINITY,
      );
      late.length = WINDOW;
    }
  }
}
