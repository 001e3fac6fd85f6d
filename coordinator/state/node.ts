// What the core knows of one node, and of its link. Only a linked node has facts; one that went away keeps its record.
import type { Digest } from '../../shared/digest.ts';
import type { Body } from '../../shared/protocol.ts';
import type { LinkId } from '../core/event.ts';
import type { PlaceNode } from '../placement/place.ts';
import type { Shyness } from '../dispatch/shyness.ts';
import type { NodeRecord } from '../store/records.ts';
import type { Runner } from './runner.ts';

export type NodeLink =
  /** Never seen in this life, or lost. Until `lostAt` its attempts are left alone; undefined: it is lost. */
  | { kind: 'away'; since: number; lostAt: number | undefined }
  | { kind: 'linked'; linkId: LinkId; silent: boolean; draining: boolean; direct: DirectReach };

export type DirectReach = { reachable: true; address: string } | { reachable: false; why: string };

export interface Node {
  record: NodeRecord;
  link: NodeLink;
  facts: Body<'hello'> | undefined;
  images: Set<Digest>;
  /** It told us a moment ago that it is full. */
  full: Shyness;
}

export function isReadyNode(node: Node): boolean {
  return node.link.kind === 'linked' && !node.link.silent && !node.link.draining;
}

/** What is left on a node beside its runners, which are `mine`. */
export function placeNodeOf(node: Node, mine: readonly Runner[], now: number): PlaceNode {
  const facts = node.facts;
  const held = new Set(mine.flatMap((runner) => runner.gpus));
  // A runner that was just sent has no GPUs by name yet, but will take as many as it asked for.
  const promised = mine.reduce(
    (sum, runner) => sum + Math.max(0, gpusAsked(runner) - runner.gpus.length),
    0,
  );
  const gpus = facts?.gpus.kind === 'gpus' ? facts.gpus.gpus : [];
  const free = gpus.filter((gpu) => !gpu.mig && !held.has(gpu.uuid));
  const used = { cpu: 0, memoryBytes: 0 };
  for (const runner of mine) {
    used.cpu += runner.cpu;
    used.memoryBytes += runner.memoryBytes;
  }
  return {
    id: node.record.nodeId,
    name: node.record.name,
    ready: isReadyNode(node) && now >= node.full.until,
    drivers: (facts?.drivers ?? []).map(({ name, unavailable }) =>
      unavailable === undefined ? { name } : { name, unavailable },
    ),
    gpusFree: free.slice(0, Math.max(0, free.length - promised)),
    gpusTotal: gpus.length,
    ...(facts?.gpus.kind === 'no_answer' ? { gpusUnknown: facts.gpus.reason } : {}),
    cpuFree: (facts?.resources.cpu ?? 0) - used.cpu,
    memoryFreeBytes: (facts?.resources.memoryBytes ?? 0) - used.memoryBytes,
    runners: mine.length,
    images: node.images,
  };
}

function gpusAsked(runner: Runner): number {
  const { machine } = runner.revision.spec;
  return (Array.isArray(machine) ? machine[0]?.gpus : machine.gpus) ?? 0;
}
