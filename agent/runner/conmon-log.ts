// Output of a container as conmon writes it: lines `<time> <stdout|stderr> <F|P> <text>` (P: no newline followed). At
// its size limit conmon begins an empty file under the same name, so we hold the file before it open: its bytes stay
// readable through our handle until the next change. `look` must be called now and then, or a generation is missed.
import { open, type FileHandle } from 'node:fs/promises';
import type { LogSlice } from './driver.ts';
import type { RunnerLog } from './log-file.ts';

const CHUNK_BYTES = 64 * 1024;
/** Raw bytes between two remembered places. */
const MARK_BYTES = 256 * 1024;
const SPACE = 0x20;
const NEWLINE = 0x0a;
const FULL = 0x46;

/** A line start: where it is in the file, and how much output came before it. */
interface Mark {
  raw: number;
  output: number;
}

interface Generation {
  handle: FileHandle;
  inode: number;
  /** Offset of its first output byte since the start of the runner. */
  base: number;
  marks: Mark[];
  scanned: Mark;
}

/** The output in the complete lines of `raw`, and how many raw bytes these lines are. */
export function decodeLines(raw: Uint8Array): { output: Uint8Array; rawBytes: number } {
  const rawBytes = raw.lastIndexOf(NEWLINE) + 1;
  const output = Buffer.allocUnsafe(rawBytes);
  let size = 0;
  for (let start = 0; start < rawBytes;) {
    const end = raw.indexOf(NEWLINE, start);
    const stream = raw.indexOf(SPACE, start) + 1;
    const kind = raw.indexOf(SPACE, stream) + 1;
    const text = raw.subarray(kind + 2, raw[kind] === FULL ? end + 1 : end);
    output.set(text, size);
    size += text.byteLength;
    start = end + 1;
  }
  return { output: output.subarray(0, size), rawBytes };
}

export class ConmonLog implements RunnerLog {
  readonly #path: string;
  readonly #generations: Generation[] = [];
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Takes note of what came and of a changed file. */
  look(): Promise<void> {
    return this.#inTurn(() => this.#look());
  }

  read(offset: number, maxBytes: number): Promise<LogSlice> {
    return this.#inTurn(async () => {
      await this.#look();
      const last = this.#generations.at(-1);
      const end = last === undefined ? 0 : last.base + last.scanned.output;
      const from = Math.min(Math.max(offset, this.#generations[0]?.base ?? 0), end);
      const parts: Uint8Array[] = [];
      let at = from;
      for (const generation of this.#generations) {
        const until = Math.min(generation.base + generation.scanned.output, from + maxBytes);
        if (at >= until) continue;
        const bytes = await part(generation, at - generation.base, until - at);
        parts.push(bytes);
        at += bytes.byteLength;
      }
      return { offset: from, bytes: Buffer.concat(parts), end };
    });
  }

  close(): Promise<void> {
    return this.#inTurn(async () => {
      this.#closed = true;
      for (const { handle } of this.#generations.splice(0)) await handle.close();
    });
  }

  async #look(): Promise<void> {
    if (this.#closed) return;
    const handle = await open(this.#path, 'r').catch(() => undefined);
    if (handle === undefined) return;
    const inode = (await handle.stat()).ino;
    const last = this.#generations.at(-1);
    if (last) await scan(last);
    if (last?.inode === inode) {
      await handle.close();
      return;
    }
    const base = last === undefined ? 0 : last.base + last.scanned.output;
    const start = { raw: 0, output: 0 };
    const next: Generation = { handle, inode, base, marks: [start], scanned: start };
    this.#generations.push(next);
    await scan(next);
    while (this.#generations.length > 2) await this.#generations.shift()?.handle.close();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

/** Decoded pieces from a mark on, with the mark after each. */
async function* pieces(handle: FileHandle, from: Mark) {
  let { raw, output: before } = from;
  let size = CHUNK_BYTES;
  for (;;) {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(size), 0, size, raw);
    const { output, rawBytes } = decodeLines(buffer.subarray(0, bytesRead));
    if (rawBytes === 0) {
      if (bytesRead < size) return; // The line is still being written.
      size *= 2;
      continue;
    }
    raw += rawBytes;
    before += output.byteLength;
    yield { output, after: { raw, output: before } };
  }
}

async function scan(generation: Generation): Promise<void> {
  for await (const { after } of pieces(generation.handle, generation.scanned)) {
    generation.scanned = after;
    if (after.raw - (generation.marks.at(-1)?.raw ?? 0) >= MARK_BYTES) generation.marks.push(after);
  }
}

/** `size` bytes of output from `start` (within the generation) on. */
async function part(generation: Generation, start: number, size: number): Promise<Uint8Array> {
  const mark = generation.marks.findLast((at) => at.output <= start) ?? { raw: 0, output: 0 };
  const parts: Uint8Array[] = [];
  for await (const { output, after } of pieces(generation.handle, mark)) {
    const first = after.output - output.byteLength;
    parts.push(output.subarray(Math.max(0, start - first), Math.max(0, start + size - first)));
    if (after.output >= start + size) break;
  }
  return Buffer.concat(parts);
}
