// THE key space of the queue database. A key is text; its parts are parted by `/` and never hold one, save the app's
// own `owner/alias`. Every key but the two global kinds begins with its partition (two hex digits), so that a
// partition can move to another owner as one range. Numbers are written in fixed width, so that order of text is
// order of number. The golden file test/golden/keys.txt holds one example of each.
import type { NodeId, RequestId, RevisionId } from '../../shared/ids.ts';
import { partitionOfApp, partitionOfRequest } from '../../shared/ids.ts';

/** 0 goes before 1: every low request waits behind all normal ones (Q4). */
export type Priority = 0 | 1;

const LAST = '\uffff';

export interface KeyRange {
  gte: string;
  lt: string;
}

function prefix(text: string): KeyRange {
  return { gte: text, lt: text + LAST };
}

function part(partition: number): string {
  return partition.toString(16).padStart(2, '0');
}

export function sequenceText(sequence: number): string {
  return sequence.toString(16).padStart(14, '0');
}

export const keys = {
  /** Format of the database and what was fixed when it was made. */
  meta: (): string => 'meta/format',
  /** Key of all tokens. */
  tokenKey: (): string => 'meta/token-key',
  node: (node: NodeId): string => `node/${node}`,
  nodes: (): KeyRange => prefix('node/'),
  /** Owner and epoch of a partition. */
  owner: (partition: number): string => `${part(partition)}/owner`,
  app: (app: string): string => `${part(partitionOfApp(app))}/app/${app}`,
  revision: (app: string, revision: RevisionId): string =>
    `${part(partitionOfApp(app))}/revision/${app}/${revision}`,
  /** Last enqueue sequence of an app. */
  sequence: (app: string): string => `${part(partitionOfApp(app))}/sequence/${app}`,
  request: (id: RequestId): string => `${part(partitionOfRequest(id))}/request/${id}`,
  /** Inline input of a request. */
  input: (id: RequestId): string => `${part(partitionOfRequest(id))}/input/${id}`,
  /** Inline result body of a request. */
  output: (id: RequestId): string => `${part(partitionOfRequest(id))}/output/${id}`,
  /** Ready to dispatch, in order (Q4). The value is the request id. */
  ready: (app: string, priority: Priority, sequence: number): string =>
    `${part(partitionOfApp(app))}/ready/${app}/${priority}/${sequenceText(sequence)}`,
  readyOf: (app: string, priority: Priority): KeyRange =>
    prefix(`${part(partitionOfApp(app))}/ready/${app}/${priority}/`),
  /** Due later: a retry that waits (`retry`), or a start timeout (`start`). The value is empty. */
  due: (id: RequestId, kind: 'retry' | 'start'): string =>
    `${part(partitionOfRequest(id))}/due/${kind}/${id}`,
  /** Dispatched to a node and not ended: what a restart and a lost node look through. */
  flight: (id: RequestId, node: NodeId): string =>
    `${part(partitionOfRequest(id))}/flight/${node}/${id}`,
  partition: (partition: number, kind: KeyKind): KeyRange => prefix(`${part(partition)}/${kind}/`),
} as const;

/** The kinds of key within a partition that are listed as a whole. */
export type KeyKind = 'app' | 'revision' | 'request' | 'ready' | 'due' | 'flight' | 'sequence';

/** The last part of a key. */
export function lastPart(key: string): string {
  return key.slice(key.lastIndexOf('/') + 1);
}
