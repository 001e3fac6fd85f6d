// The output of a bare process, kept by us: segments named after the offset of their first byte, the oldest dropped.
// Offsets count from the start of the runner and only grow, also over a restart of the agent.
import { open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { LogSlice } from './driver.ts';

/** Kept segments: dropping one loses a quarter of the kept output. */
const SEGMENTS = 4;

interface Segment {
  start: number;
  sizeBytes: number;
  handle: FileHandle;
}

/** A reader of a runner's output, whoever writes it. */
export interface RunnerLog {
  read(offset: number, maxBytes: number): Promise<LogSlice>;
  close(): Promise<void>;
}

export class SegmentLog implements RunnerLog {
  readonly #folder: string;
  readonly #segmentBytes: number;
  readonly #segments: Segment[] = [];
  #writes: Promise<void> = Promise.resolve();

  private constructor(folder: string, maxBytes: number) {
    this.#folder = folder;
    this.#segmentBytes = Math.max(1, Math.floor(maxBytes / SEGMENTS));
  }

  /** Opens the log in `folder`, with what an earlier life wrote there. */
  static async open(folder: string, maxBytes: number): Promise<SegmentLog> {
    const log = new SegmentLog(folder, maxBytes);
    const names = (await readdir(folder)).filter((name) => /^log\.\d+$/.test(name));
    const starts = names.map((name) => Number(name.slice(4))).sort((a, b) => a - b);
    for (const start of starts) await log.#add(start);
    if (starts.length === 0) await log.#add(0);
    return log;
  }

  /** Writes all that the streams bring; a runner that floods is slowed down to the speed of the disk (F32). */
  collect(stream: Readable): Promise<void> {
    const pump = async (): Promise<void> => {
      for await (const chunk of stream) await this.append(chunk as Uint8Array);
    };
    return pump().catch(() => undefined); // Its pipe broke, or the log is closed: there is nothing to keep.
  }

  append(bytes: Uint8Array): Promise<void> {
    const done = this.#writes.then(() => this.#append(bytes));
    this.#writes = done.catch(() => undefined);
    return done;
  }

  async read(offset: number, maxBytes: number): Promise<LogSlice> {
    await this.#writes;
    const last = this.#segments.at(-1);
    const end = last === undefined ? 0 : last.start + last.sizeBytes;
    const from = Math.min(Math.max(offset, this.#segments[0]?.start ?? 0), end);
    const parts: Uint8Array[] = [];
    let at = from;
    for (const { start, sizeBytes, handle } of [...this.#segments]) {
      const want = Math.min(start + sizeBytes - at, from + maxBytes - at);
      if (want <= 0 || at < start) continue;
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(want), 0, want, at - start);
      parts.push(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
    return { offset: from, bytes: Buffer.concat(parts), end };
  }

  async close(): Promise<void> {
    await this.#writes;
    for (const segment of this.#segments.splice(0)) await segment.handle.close();
  }

  async #append(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.byteLength > 0;) {
      const last = this.#segments.at(-1);
      if (last === undefined) return; // Closed.
      const room = this.#segmentBytes - last.sizeBytes;
      if (room === 0) {
        await this.#add(last.start + last.sizeBytes);
        continue;
      }
      const { bytesWritten } = await last.handle.write(
        rest.subarray(0, room),
        0,
        null,
        last.sizeBytes,
      );
      last.sizeBytes += bytesWritten;
      rest = rest.subarray(bytesWritten);
    }
  }

  async #add(start: number): Promise<void> {
    const handle = await open(join(this.#folder, `log.${start}`), 'a+');
    this.#segments.push({ start, sizeBytes: (await handle.stat()).size, handle });
    while (this.#segments.length > SEGMENTS) {
      const oldest = this.#segments.shift();
      await oldest?.handle.close();
      if (oldest) await rm(join(this.#folder, `log.${oldest.start}`), { force: true });
    }
  }
}
