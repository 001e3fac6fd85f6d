// The real GPU probe: node-nvidia-smi in a child process (gpu-probe-child.ts), and what its failures mean.
// Invariants P1–P3 in gpu-probe.ts.
import { existsSync } from 'node:fs';
import { z } from 'zod';
import type { Clock } from '../../shared/clock.ts';
import { GpuReadings, type Seen } from './gpu-readings.ts';
import { gpusSeen, type GpuProbe, type GpuReading } from './gpu-probe.ts';
import { ProbeChild, type ProbeEnd } from './probe-child.ts';

/** What gpu-probe-child.ts prints. */
const childAnswer = z.discriminatedUnion('kind', [
  gpusSeen,
  z.strictObject({ kind: z.literal('unusable'), reason: z.string() }),
  z.strictObject({ kind: z.literal('tool'), code: z.number().nullable(), words: z.string() }),
]);

/** Exit codes of nvidia-smi, from its manual page; used where it says nothing itself. */
const EXIT_CODES: Record<number, string> = {
  3: 'the operation is not available on this device',
  4: 'no permission to ask the driver',
  6: 'the query did not find an object',
  8: 'external power cables of a GPU are not attached',
  9: 'the NVIDIA driver is not loaded',
  10: 'the kernel found an interrupt problem with a GPU',
  12: 'the NVML library cannot be found or loaded',
  13: 'the NVML library is older than nvidia-smi',
  14: 'the infoROM is corrupted',
  15: 'a GPU has fallen off the bus or is not accessible',
};
const NOT_FOUND = 127;
const NO_OBJECT = 6;

export interface NvidiaGpuProbeOptions {
  clock: Clock;
  timeoutMs?: number;
  /** Folders to look for nvidia-smi in; the agent's PATH by default. */
  path?: string;
  /** Is there while the driver is loaded. */
  driverFile?: string;
}

export class NvidiaGpuProbe implements GpuProbe {
  readonly #readings: GpuReadings;
  readonly #driverFile: string;

  constructor(options: NvidiaGpuProbeOptions) {
    this.#driverFile = options.driverFile ?? '/proc/driver/nvidia/version';
    const { clock, timeoutMs, path } = options;
    const child = new ProbeChild({
      clock,
      script: 'gpu-probe-child.ts',
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(path === undefined ? {} : { path }),
    });
    this.#readings = new GpuReadings(clock, async (signal) =>
      this.#meaning(await child.run(signal)),
    );
  }

  read(signal: AbortSignal): Promise<GpuReading> {
    return this.#readings.read(signal);
  }

  close(): void {
    this.#readings.close();
  }

  #meaning(end: ProbeEnd): Seen {
    if (end.kind === 'failed') return { kind: 'no_answer', reason: `nvidia-smi: ${end.reason}` };
    const { data: answer } = childAnswer.safeParse(end.value);
    if (answer === undefined)
      return { kind: 'no_answer', reason: 'the probe printed something else' };
    if (answer.kind === 'gpus') return answer;
    if (answer.kind === 'unusable') return { kind: 'no_answer', reason: answer.reason };
    if (answer.code === NOT_FOUND && /nvidia-smi: (command )?not found/.test(answer.words)) {
      if (!existsSync(this.#driverFile)) return { kind: 'none' };
      return {
        kind: 'no_answer',
        reason: 'the NVIDIA driver is loaded, but nvidia-smi is not on PATH',
      };
    }
    if (answer.code === NO_OBJECT && /No devices were found/i.test(answer.words))
      return { kind: 'gpus', gpus: [], unreadable: [] };
    const known =
      answer.code === null
        ? 'was killed'
        : (EXIT_CODES[answer.code] ?? `ended with code ${answer.code}`);
    return { kind: 'no_answer', reason: `nvidia-smi: ${answer.words || known}` };
  }
}
