// The seam to the GPUs of a node: what nvidia-smi says of them, or that it does not answer. Real:
// nvidia-gpu-probe.ts; for tests: memory-gpu-probe.ts. Both pass test/conformance/gpu-probe.ts.
//
//   P1  A read always ends: with what was seen, or with `no_answer`, its reason and since when.
//   P2  At most one probe is in flight; callers that come meanwhile get its reading.
//   P3  What nvidia-smi does not say is absent, never zero and never invented.
import { z } from 'zod';

const bytes = z.number().int().min(0);

const migDevice = z.strictObject({
  index: z.number().int(),
  gpuInstanceId: z.number().int().optional(),
  computeInstanceId: z.number().int().optional(),
  memoryBytes: bytes.optional(),
});

/** One GPU as nvidia-smi describes it. */
export const gpu = z.strictObject({
  /** `GPU-…`: the only name that survives a reboot or a moved card. */
  uuid: z.string().min(1),
  /** As nvidia-smi counts: PCI bus order. For people. */
  index: z.number().int().min(0),
  /** N of `/dev/nvidiaN`. Without it the GPU cannot be given to a runner. */
  minor: z.number().int().min(0).optional(),
  name: z.string(),
  architecture: z.string().optional(),
  /** `00000000:41:00.0` */
  pciBusId: z.string().optional(),
  memoryBytes: bytes.optional(),
  memoryUsedBytes: bytes.optional(),
  /** The GPU is cut into instances and cannot be handed out whole. */
  migMode: z.boolean(),
  migDevices: z.array(migDevice),
  utilizationPercent: z.number().optional(),
  memoryUtilizationPercent: z.number().optional(),
  temperatureCelsius: z.number().optional(),
  powerWatts: z.number().optional(),
  computeMode: z.string().optional(),
  /** Since the driver was loaded. Absent where ECC is off or not there. */
  eccCorrected: z.number().int().optional(),
  eccUncorrected: z.number().int().optional(),
  /** Why no runner should get it, in words; empty when it is well. */
  problems: z.array(z.string()),
});
export type Gpu = z.output<typeof gpu>;

/** What a machine with an NVIDIA driver has. */
export const gpusSeen = z.strictObject({
  kind: z.literal('gpus'),
  driverVersion: z.string().optional(),
  cudaVersion: z.string().optional(),
  gpus: z.array(gpu),
  /** Entries without a UUID: a GPU is there, but nobody can address it. */
  unreadable: z.array(z.string()),
});
export type GpusSeen = z.output<typeof gpusSeen>;

/** There is neither an NVIDIA driver nor its tool: a machine without GPUs. */
export interface NoGpus {
  kind: 'none';
}

/** The driver or its tool is there but does not answer as it should. */
export interface NoAnswer {
  kind: 'no_answer';
  reason: string;
  /** Wall time of the first read in a row that got no answer. */
  sinceMs: number;
  /** What was seen before, and how old that is now. */
  lastGood?: { reading: GpusSeen | NoGpus; ageMs: number };
}

export type GpuReading = GpusSeen | NoGpus | NoAnswer;

export interface GpuProbe {
  /** Rejects only with the reason of `signal`; the probe itself goes on for other callers. */
  read(signal: AbortSignal): Promise<GpuReading>;
  /** Ends a probe in flight; later reads say `no_answer`. */
  close(): void;
}

/** Whether nothing speaks against giving the GPU to a runner. */
export const isHealthy = (seen: Gpu): boolean => seen.problems.length === 0;
