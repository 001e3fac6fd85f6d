// Looks at the GPUs again and again, and keeps the last reading for whoever needs one now: nothing ever waits for
// nvidia-smi, however long it hangs.
import type { Clock } from '../../shared/clock.ts';
import { sleep } from '../../shared/clock.ts';
import type { Log } from '../../shared/log.ts';
import type { GpuReport } from '../../shared/protocol.ts';
import { whyUnusable } from '../node/gpu-hand-out.ts';
import type { Gpu, GpuProbe, GpuReading } from '../node/gpu-probe.ts';

const EVERY_MS = 30_000;

export interface GpuWatchParts {
  probe: GpuProbe;
  clock: Clock;
  log: Log;
  /** Hears that the GPUs are not the ones they were. */
  changed(report: GpuReport): void;
  everyMs?: number;
}

export class GpuWatch {
  readonly #parts: GpuWatchParts;
  #reading: GpuReading;
  #said: string | undefined;

  constructor(parts: GpuWatchParts) {
    this.#parts = parts;
    this.#reading = { kind: 'no_answer', reason: 'not asked yet', sinceMs: parts.clock.now() };
  }

  get reading(): GpuReading {
    return this.#reading;
  }

  get report(): GpuReport {
    return gpuReport(this.#reading);
  }

  /** Returns when `signal` aborts; `first` is called after the first answer. */
  async run(first: () => void, signal: AbortSignal): Promise<void> {
    const { probe, clock, everyMs = EVERY_MS } = this.#parts;
    while (!signal.aborted) {
      try {
        this.#reading = await probe.read(signal);
        this.#tell();
        first();
        await sleep(clock, everyMs, signal);
      } catch {
        // Only the signal's reason: a read itself never fails (P1).
        return;
      }
    }
  }

  #tell(): void {
    const { log, changed } = this.#parts;
    const { report } = this;
    const said = JSON.stringify(identityOf(report));
    if (said === this.#said) return;
    this.#said = said;
    const unusable =
      this.#reading.kind === 'gpus'
        ? this.#reading.gpus.flatMap((gpu) => {
            const why = whyUnusable(gpu);
            return why === undefined ? [] : [`GPU ${gpu.index} ${why}`];
          })
        : [];
    log.event('gpu.changed', {
      ...identityOf(report),
      ...(unusable.length > 0 ? { unusable } : {}),
    });
    changed(report);
  }
}

/** A reading as the coordinator hears it. GPUs that no runner may get are left out, save those cut into MIG devices. */
export function gpuReport(reading: GpuReading): GpuReport {
  switch (reading.kind) {
    case 'none':
      return { kind: 'none' };
    case 'no_answer':
      return { kind: 'no_answer', reason: reading.reason.slice(0, 1024), sinceMs: reading.sinceMs };
    case 'gpus': {
      const { driverVersion, cudaVersion } = reading;
      const gpus = reading.gpus.filter((gpu) => gpu.migMode || whyUnusable(gpu) === undefined);
      return {
        kind: 'gpus',
        ...(driverVersion === undefined ? {} : { driverVersion }),
        ...(cudaVersion === undefined ? {} : { cudaVersion }),
        gpus: gpus.slice(0, 64).map(reported),
      };
    }
  }
}

function reported(gpu: Gpu): Extract<GpuReport, { kind: 'gpus' }>['gpus'][number] {
  const { uuid, index, minor, name, memoryBytes = 0, memoryUsedBytes, migMode } = gpu;
  return {
    uuid,
    index,
    name,
    memoryBytes,
    mig: migMode,
    ...(minor === undefined ? {} : { minor }),
    ...(memoryUsedBytes === undefined ? {} : { memoryUsedBytes }),
  };
}

/** What makes a report another one: not how much memory is in use, and not since when nothing answers. */
function identityOf(report: GpuReport): Record<string, unknown> {
  if (report.kind !== 'gpus')
    return report.kind === 'none' ? report : { kind: report.kind, reason: report.reason };
  const gpus = report.gpus.map(({ uuid, name, mig }) => ({ uuid, name, mig }));
  return { kind: report.kind, driverVersion: report.driverVersion, gpus };
}
