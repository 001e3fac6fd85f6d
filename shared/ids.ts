// Ids. A request id is a UUID version 7 (RFC 9562: time in front, so ids sort by time) whose fourth group carries
// the partition in its 14 free bits, so that `/v1/requests/{id}` finds the partition without a directory.
// Other ids are short, sortable by time and safe as file names, cgroup names and host names.
import type { Chance } from './chance.ts';

export type RequestId = string & { readonly is: 'RequestId' };
export type RunnerId = string & { readonly is: 'RunnerId' };
export type NodeId = string & { readonly is: 'NodeId' };
export type RevisionId = string & { readonly is: 'RevisionId' };

/** Fixed when a cluster is created; every key and token carries one of them. */
export const PARTITIONS = 64;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** A new request id. `nowMs` is wall time; ids drawn in one millisecond are in no order. */
export function newRequestId(nowMs: number, partition: number, chance: Chance): RequestId {
  const hex = hexOfBytes(chance.bytes(8, 'request id'));
  const time = nowMs.toString(16).padStart(12, '0').slice(-12);
  const group4 = (0x8000 | (partition & 0x3fff)).toString(16);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex.slice(0, 3)}-${group4}-${hex.slice(4, 16)}` as RequestId;
}

export function isRequestId(text: string): text is RequestId {
  return UUID.test(text) && partitionOfRequest(text as RequestId) < PARTITIONS;
}

export function partitionOfRequest(id: RequestId): number {
  return Number.parseInt(id.slice(19, 23), 16) & 0x3fff;
}

/** The partition that owns an app: a hash (FNV-1a) of `owner/alias`, the same on every machine for ever. */
export function partitionOfApp(app: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(app)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash % PARTITIONS;
}

const SHORT = /^[a-z][0-9a-z]{17}$/;

/** `r` + 9 characters of time + 8 of chance, base 36. */
export function newRunnerId(nowMs: number, chance: Chance): RunnerId {
  return shortId('r', nowMs, chance) as RunnerId;
}

export function newRevisionId(nowMs: number, chance: Chance): RevisionId {
  return shortId('v', nowMs, chance) as RevisionId;
}

export function newNodeId(nowMs: number, chance: Chance): NodeId {
  return shortId('n', nowMs, chance) as NodeId;
}

export function isShortId(text: string): boolean {
  return SHORT.test(text);
}

function shortId(kind: string, nowMs: number, chance: Chance): string {
  const time = nowMs.toString(36).padStart(9, '0').slice(-9);
  const draw = [...chance.bytes(8, `${kind} id`)].map((byte) => (byte % 36).toString(36)).join('');
  return `${kind}${time}${draw}`;
}

export function hexOfBytes(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
