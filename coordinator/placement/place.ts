// Which node gets a runner: pure, over a snapshot. A node must have the driver, the GPUs, the CPU and the memory; of those
// that do, one with the image cached goes first (bytes are what a cold start waits for), then the one with the fewest free
// GPUs (keeps whole machines whole), then the one with the fewest runners. The verdict on every node is kept, so that
// `explain` can read it back.
import type { Machine } from '../../shared/app-spec.ts';
import type { Digest } from '../../shared/digest.ts';
import type { NodeId } from '../../shared/ids.ts';

export interface PlaceNode {
  id: NodeId;
  name: string;
  /** It is linked, heard, and takes new work. */
  ready: boolean;
  drivers: readonly { name: string; unavailable?: string }[];
  /** GPUs that nobody holds. */
  gpusFree: readonly { name: string; memoryBytes: number }[];
  gpusTotal: number;
  /** Why there are no GPUs, when the driver gives no answer. */
  gpusUnknown?: string;
  cpuFree: number;
  memoryFreeBytes: number;
  runners: number;
  images: ReadonlySet<Digest>;
}

export interface PlaceNeed {
  driver: 'runc' | 'process';
  machine: Machine;
  imageDigest?: Digest;
}

export interface Verdict {
  node: NodeId;
  name: string;
  fits: boolean;
  why: string;
}

export interface Placement {
  node: NodeId | undefined;
  verdicts: Verdict[];
}

export function place(need: PlaceNeed, nodes: readonly PlaceNode[]): Placement {
  const verdicts = nodes.map((node): Verdict => {
    const refusal = refusalOf(need, node);
    return {
      node: node.id,
      name: node.name,
      fits: refusal === undefined,
      why: refusal ?? meritOf(need, node),
    };
  });
  const fitting = nodes.filter((_, at) => verdicts[at]?.fits);
  const cached = (node: PlaceNode): number =>
    need.imageDigest && node.images.has(need.imageDigest) ? 0 : 1;
  fitting.sort(
    (a, b) =>
      cached(a) - cached(b) ||
      a.gpusFree.length - b.gpusFree.length ||
      a.runners - b.runners ||
      (a.id < b.id ? -1 : 1),
  );
  return { node: fitting[0]?.id, verdicts };
}

function meritOf(need: PlaceNeed, node: PlaceNode): string {
  const image = need.imageDigest
    ? node.images.has(need.imageDigest)
      ? 'image cached, '
      : 'image to pull, '
    : '';
  return `${image}${node.gpusFree.length} of ${node.gpusTotal} GPUs free, ${node.runners} runners`;
}

/** Why the node cannot hold it; undefined when it can. */
function refusalOf(need: PlaceNeed, node: PlaceNode): string | undefined {
  if (!node.ready) return 'not ready';
  const driver = node.drivers.find((one) => one.name === need.driver);
  if (!driver || driver.unavailable !== undefined)
    return `cannot run ${need.driver === 'runc' ? 'containers' : 'processes'}: ${driver?.unavailable ?? 'no driver'}`;
  const { gpus, gpu, vram, cpu, memory } = need.machine;
  if (gpus > 0) {
    if (node.gpusUnknown !== undefined) return `GPUs unknown: ${node.gpusUnknown}`;
    const matching = node.gpusFree.filter(
      (one) =>
        (gpu === undefined || one.name.toLowerCase().includes(gpu.toLowerCase())) &&
        (vram === undefined || one.memoryBytes >= vram),
    );
    if (matching.length < gpus) {
      const kind = gpu ? ` ${gpu}` : '';
      return `${matching.length} fitting of ${node.gpusTotal} GPUs free, ${gpus}${kind} wanted`;
    }
  }
  if (cpu !== undefined && cpu > node.cpuFree)
    return `${round(node.cpuFree)} CPUs free, ${cpu} wanted`;
  if (memory !== undefined && memory > node.memoryFreeBytes)
    return `${gib(node.memoryFreeBytes)} memory free, ${gib(memory)} wanted`;
  return undefined;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function gib(bytes: number): string {
  return `${round(bytes / 2 ** 30)} GiB`;
}
