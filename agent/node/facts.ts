// What a node is, apart from its GPUs: host, CPU, memory, disk of the data folder, network. systeminformation starts
// programs (some of them blocking), so it runs in a child process (facts-child.ts) with a deadline.
//
//   N1  Facts never fail: what could not be learnt is absent, and `missing` says why.
import { readFile, statfs } from 'node:fs/promises';
import { hostname } from 'node:os';
import { z } from 'zod';
import type { Clock } from '../../shared/clock.ts';
import { ProbeChild } from './probe-child.ts';

const text = z.string().min(1);
const positive = z.number().positive();

/** What facts-child.ts prints; every field may be absent. */
const learnt = z.object({
  os: text.optional(),
  kernel: text.optional(),
  arch: text.optional(),
  cpuModel: text.optional(),
  cpuCores: positive.optional(),
  memoryTotalBytes: positive.optional(),
  memoryFreeBytes: positive.optional(),
  networkMbps: positive.optional(),
  virtualisation: text.optional(),
  missing: z.array(z.string()),
});

export interface NodeFacts extends z.output<typeof learnt> {
  hostname: string;
  /** Changes at every boot; part of what proves a process ours (A3). */
  bootId?: string;
  /** Of the file system that holds the data folder. */
  diskTotalBytes?: number;
  diskFreeBytes?: number;
}

export interface FactsOptions {
  clock: Clock;
  dataDir: string;
  timeoutMs?: number;
  /** How long facts stay good enough; five minutes by default. */
  freshForMs?: number;
  path?: string;
}

/** Reads the facts of this node, and keeps them for a while. */
export class Facts {
  readonly #options: FactsOptions;
  readonly #child: ProbeChild;
  #kept: { facts: Promise<NodeFacts>; atMs: number } | undefined;

  constructor(options: FactsOptions) {
    this.#options = options;
    const { clock, timeoutMs, path } = options;
    this.#child = new ProbeChild({
      clock,
      script: 'facts-child.ts',
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(path === undefined ? {} : { path }),
    });
  }

  /** Kept facts while they are fresh, new ones otherwise; an aborted look gives partial facts (N1). */
  read(signal: AbortSignal): Promise<NodeFacts> {
    const { clock, freshForMs = 300_000 } = this.#options;
    const nowMs = clock.elapsed();
    if (this.#kept === undefined || nowMs - this.#kept.atMs > freshForMs)
      this.#kept = { facts: this.#learn(signal), atMs: nowMs };
    return this.#kept.facts;
  }

  async #learn(signal: AbortSignal): Promise<NodeFacts> {
    const [end, disk, bootId] = await Promise.all([
      this.#child.run(signal),
      diskOf(this.#options.dataDir),
      readFile('/proc/sys/kernel/random/boot_id', 'utf8').then(
        (id) => id.trim(),
        () => undefined,
      ),
    ]);
    const { data } = learnt.safeParse(end.kind === 'answer' ? end.value : undefined);
    const facts = data ?? {
      missing: [end.kind === 'failed' ? `host: ${end.reason}` : 'host: unreadable'],
    };
    // A look that failed is not kept: the next read tries again.
    if (data === undefined) this.#kept = undefined;
    return { hostname: hostname(), ...facts, ...disk, ...(bootId ? { bootId } : {}) };
  }
}

async function diskOf(
  folder: string,
): Promise<{ diskTotalBytes?: number; diskFreeBytes?: number }> {
  try {
    const { bsize, blocks, bavail } = await statfs(folder);
    return { diskTotalBytes: bsize * blocks, diskFreeBytes: bsize * bavail };
  } catch {
    return {};
  }
}
