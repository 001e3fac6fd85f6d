// One millisecond more for every fsync of the programs that are started with it, and a count of them. Both sides of a
// row that claims durability run with it: a disk that answers from its cache would hide what durability costs.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { command, complaint } from '../tools/command.ts';
import type { Tools } from '../tools/tools.ts';

export const DELAY_MS = 1;

export class SlowFsync {
  readonly #library: string;
  readonly #folder: string;

  private constructor(library: string, folder: string) {
    this.#library = library;
    this.#folder = folder;
  }

  /** Compiles the library into `folder`. */
  static async build(tools: Tools, folder: string): Promise<SlowFsync> {
    const library = join(folder, 'slow-fsync.so');
    const source = join(import.meta.dirname, 'slow-fsync.c');
    const args = ['-shared', '-nostdlib', '-o', library, source];
    const ended = await command(tools.path('tcc'), args);
    if (ended.code !== 0) throw new Error(`tcc: ${complaint(ended)}`);
    return new SlowFsync(library, folder);
  }

  /** Environment for the programs of one side; their calls are counted together. */
  env(side: string): Record<string, string> {
    return {
      LD_PRELOAD: this.#library,
      SLOW_FSYNC_NS: String(DELAY_MS * 1e6),
      SLOW_FSYNC_COUNT: this.#countFile(side),
    };
  }

  /** How many calls the programs of a side have made so far. */
  count(side: string): number {
    return statSync(this.#countFile(side), { throwIfNoEntry: false })?.size ?? 0;
  }

  #countFile(side: string): string {
    return join(this.#folder, `fsyncs-${side}`);
  }
}
