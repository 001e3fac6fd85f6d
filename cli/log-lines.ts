// The output of a runner on its way to stdout: whole lines, safe to print on a terminal, the last N of what there was
// before. Bytes go through untouched when nobody reads them as text.
//
//   L1  With a tail, what arrives before the first silence counts as what was there before: the coordinator sends all
//       it has without a pause, and then only what is new.
import type { Clock, Timer } from '../shared/clock.ts';
import { limits } from '../shared/limits.ts';
import { withoutControls, type Terminal } from './terminal.ts';

const SILENCE_MS = 300;

export interface LogOptions {
  /** The last lines of what there was before; absent: all of it. */
  tail?: number | undefined;
  clock: Clock;
}

/** Prints `chunks` until they end. */
export async function printLog(
  chunks: AsyncIterable<Uint8Array>,
  terminal: Terminal,
  options: LogOptions,
): Promise<void> {
  const write = terminal.tty
    ? (line: Uint8Array): Promise<void> => terminal.outBytes(cleaned(line))
    : (line: Uint8Array): Promise<void> => terminal.outBytes(line);
  const backlog = options.tail === undefined ? undefined : new Backlog(options.tail);
  const lines = new Lines();
  let timer: Timer | undefined;
  let writing = Promise.resolve();
  const flush = (): void => {
    for (const line of backlog?.take() ?? []) writing = writing.then(() => write(line));
  };
  for await (const chunk of chunks) {
    timer?.cancel();
    for (const line of lines.push(chunk)) {
      if (backlog?.open) backlog.add(line);
      else writing = writing.then(() => write(line));
    }
    await writing;
    if (backlog?.open) timer = options.clock.after(SILENCE_MS, flush);
  }
  timer?.cancel();
  const rest = lines.rest();
  if (rest && backlog?.open) backlog.add(rest);
  else if (rest) writing = writing.then(() => write(rest));
  flush();
  await writing;
}

function cleaned(line: Uint8Array): Uint8Array {
  return Buffer.from(withoutControls(Buffer.from(line).toString('utf8')));
}

/** Cuts chunks into lines that keep their newline. */
class Lines {
  #rest: Uint8Array = new Uint8Array();

  push(chunk: Uint8Array): Uint8Array[] {
    const bytes = this.#rest.byteLength > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    const lines: Uint8Array[] = [];
    let from = 0;
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, from)) {
      lines.push(bytes.subarray(from, at + 1));
      from = at + 1;
    }
    // A line that never ends (a progress bar, binary output) must not pile up.
    const tooLong = bytes.byteLength - from > limits.logReadBytes;
    if (tooLong) lines.push(bytes.subarray(from));
    this.#rest = tooLong ? new Uint8Array() : bytes.slice(from);
    return lines;
  }

  rest(): Uint8Array | undefined {
    return this.#rest.byteLength > 0 ? this.#rest : undefined;
  }
}

/** The last lines of what there was before, until it is taken (L1). */
class Backlog {
  open = true;
  readonly #lines: Uint8Array[] = [];
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  add(line: Uint8Array): void {
    this.#lines.push(line);
    if (this.#lines.length > this.#most * 2 + 1_000)
      this.#lines.splice(0, this.#lines.length - this.#most);
  }

  take(): Uint8Array[] {
    if (!this.open) return [];
    this.open = false;
    return this.#lines.slice(-this.#most);
  }
}
