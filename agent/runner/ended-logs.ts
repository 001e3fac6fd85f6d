// Output of runners that are gone, copied before the driver removes its own, so that "why did it fail" can still be
// answered. The last ones are kept; an agent that starts anew begins with none.
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunnerId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { LogSlice, Running } from './driver.ts';

/** How many ended runners keep their log. */
const KEPT = 20;
/** How much of a log goes into the message of a failure. */
const TAIL_BYTES = 1_500;

interface Kept {
  /** Where the kept bytes begin, counted since the runner's start. */
  offset: number;
  end: number;
}

export class EndedLogs {
  readonly #folder: string;
  readonly #kept = new Map<RunnerId, Kept>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Removes what an earlier life left. */
  async open(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
  }

  /** Copies the log of a runner that has ended. A log that cannot be kept is no reason to keep a runner. */
  async keep(runnerId: RunnerId, running: Running): Promise<void> {
    const file = await open(this.#path(runnerId), 'w', 0o600);
    let kept: Kept | undefined;
    try {
      for (;;) {
        const slice: LogSlice = await running.readLog(kept?.end ?? 0, limits.logReadBytes);
        kept ??= { offset: slice.offset, end: slice.offset };
        if (slice.bytes.byteLength === 0) break;
        await file.write(slice.bytes);
        kept.end = slice.offset + slice.bytes.byteLength;
        if (kept.end - kept.offset >= limits.logBytes) break;
      }
    } finally {
      await file.close();
    }
    this.#kept.set(runnerId, kept ?? { offset: 0, end: 0 });
    for (const old of [...this.#kept.keys()].slice(0, -KEPT)) {
      this.#kept.delete(old);
      await rm(this.#path(old), { force: true });
    }
  }

  /** Undefined when nothing is kept of that runner. */
  async read(runnerId: RunnerId, offset: number, maxBytes: number): Promise<LogSlice | undefined> {
    const kept = this.#kept.get(runnerId);
    if (!kept) return undefined;
    const from = Math.min(Math.max(offset, kept.offset), kept.end);
    const sizeBytes = Math.min(maxBytes, kept.end - from);
    const bytes = new Uint8Array(sizeBytes);
    const file = await open(this.#path(runnerId), 'r').catch(() => undefined);
    if (!file) return undefined;
    try {
      const { bytesRead } = await file.read(bytes, 0, sizeBytes, from - kept.offset);
      return { offset: from, bytes: bytes.subarray(0, bytesRead), end: kept.end };
    } finally {
      await file.close();
    }
  }

  /** The last lines of a kept log, for the message of a failure; empty when there are none. */
  async tail(runnerId: RunnerId): Promise<string> {
    const bytes = await readFile(this.#path(runnerId)).catch(() => Buffer.alloc(0));
    return bytes.subarray(-TAIL_BYTES).toString('utf8').trim();
  }

  #path(runnerId: RunnerId): string {
    return join(this.#folder, `${runnerId}.log`);
  }
}
