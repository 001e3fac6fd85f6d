// Which GPUs of a node a runner gets. Pure: the caller keeps the state and asks before it starts a runner.
//
//   G1  A GPU belongs to one runner at a time, whole.
//   G2  A runner gets all the GPUs it asked for or none, and a refusal says why in words.
//   G3  What is cut into MIG instances, unhealthy or without a device number is never handed out.
import { limits } from '../../shared/limits.ts';
import type { RunnerId } from '../../shared/ids.ts';
import type { GrantedGpu } from '../runner/driver.ts';
import { isHealthy, type Gpu } from './gpu-probe.ts';

/** GPU UUID → the runner that has it. */
export type HandOut = ReadonlyMap<string, RunnerId>;

export interface GpuWish {
  count: number;
  /** Part of the name, upper or lower case: `H100`. */
  gpu?: string;
  /** Least memory of each. */
  vramBytes?: number;
}

export type TakeResult =
  { kind: 'taken'; gpus: GrantedGpu[]; state: HandOut } | { kind: 'refused'; reason: string };

/** Hands `wish.count` GPUs to `runner`, or says why not. */
export function take(
  state: HandOut,
  gpus: readonly Gpu[],
  wish: GpuWish,
  runner: RunnerId,
): TakeResult {
  const refused = (reason: string): TakeResult => ({ kind: 'refused', reason });
  if (!Number.isInteger(wish.count) || wish.count < 0 || wish.count > limits.gpusPerRunner)
    return refused(`a runner gets 0 to ${limits.gpusPerRunner} GPUs, not ${wish.count}`);
  if (wish.count === 0) return { kind: 'taken', gpus: [], state };
  if (gpus.length === 0) return refused('the node has no GPUs');
  const named = gpus.filter((seen) => hasName(seen, wish.gpu));
  if (named.length === 0) return refused(`no GPU named ${wish.gpu}; there are: ${namesOf(gpus)}`);
  const large = named.filter((seen) => (seen.memoryBytes ?? 0) >= (wish.vramBytes ?? 0));
  if (large.length === 0)
    return refused(
      `no GPU has ${gib(wish.vramBytes ?? 0)} of memory; the largest has ${largest(named)}`,
    );
  const usable = large.filter((seen) => whyUnusable(seen) === undefined);
  if (usable.length < wish.count)
    return refused(
      `${usable.length} usable GPUs, ${wish.count} wanted${listed(large.flatMap(reasonOf))}`,
    );
  const free = usable.filter((seen) => !state.has(seen.uuid));
  if (free.length < wish.count)
    return refused(`${free.length} of ${usable.length} GPUs free, ${wish.count} wanted`);
  const granted = choose(free, usable, wish.count).flatMap(grant);
  const next = new Map(state);
  for (const { uuid } of granted) next.set(uuid, runner);
  return { kind: 'taken', gpus: granted, state: next };
}

/** Takes back everything that `runner` has; fine when that is nothing. */
export function release(state: HandOut, runner: RunnerId): HandOut {
  return new Map([...state].filter(([, holder]) => holder !== runner));
}

/** Re-adopts what a runner of an earlier life of the agent holds; GPUs that are not free are left out (G1). */
export function adopt(state: HandOut, uuids: readonly string[], runner: RunnerId): HandOut {
  const next = new Map(state);
  for (const uuid of uuids) if (!next.has(uuid)) next.set(uuid, runner);
  return next;
}

/** Why a GPU is never handed out (G3); undefined when it may be. */
export function whyUnusable(seen: Gpu): string | undefined {
  if (seen.migMode) return 'is cut into MIG instances and is not handed out whole';
  if (!isHealthy(seen)) return `is not healthy: ${seen.problems.join(', ')}`;
  if (seen.minor === undefined) return 'has no device number';
  return undefined;
}

/**
 * The smallest run of neighbours (by index, which is bus order, so mostly one PCI switch or NUMA node) that has
 * enough free ones: the largest holes are kept whole for the runners that need many.
 */
function choose(free: readonly Gpu[], usable: readonly Gpu[], count: number): readonly Gpu[] {
  const sorted = free.toSorted((a, b) => a.index - b.index);
  const holes: Gpu[][] = [];
  for (const seen of sorted) {
    const hole = holes.at(-1);
    const last = hole?.at(-1);
    const between = usable.some(
      (other) => last && other.index > last.index && other.index < seen.index,
    );
    if (hole && !between) hole.push(seen);
    else holes.push([seen]);
  }
  const fitting = holes
    .filter((hole) => hole.length >= count)
    .toSorted((a, b) => a.length - b.length)[0];
  return (fitting ?? sorted).slice(0, count);
}

const hasName = (seen: Gpu, part: string | undefined): boolean =>
  part === undefined || seen.name.toLowerCase().includes(part.toLowerCase());

const grant = ({ uuid, minor, index }: Gpu): GrantedGpu[] =>
  minor === undefined ? [] : [{ uuid, minor, index }];

function reasonOf(seen: Gpu): string[] {
  const why = whyUnusable(seen);
  return why === undefined ? [] : [`GPU ${seen.index} ${why}`];
}

const listed = (reasons: readonly string[]): string =>
  reasons.length === 0 ? '' : `: ${reasons.join('; ')}`;
const namesOf = (gpus: readonly Gpu[]): string =>
  [...new Set(gpus.map(({ name }) => name))].join(', ');
const gib = (bytes: number): string => `${Math.round((bytes / 2 ** 30) * 10) / 10} GiB`;
const largest = (gpus: readonly Gpu[]): string =>
  gib(Math.max(...gpus.map(({ memoryBytes }) => memoryBytes ?? 0)));
