// What the queue database holds: the shapes of its values. Values are plain data; store/codec.ts puts version and
// checksum round them. Wall times are for people and for restarts; in one process durations are monotonic.
import type { AppSpec } from '../../shared/app-spec.ts';
import type { Digest } from '../../shared/digest.ts';
import type { FailureCode } from '../../shared/failure.ts';
import type { NodeId, RequestId, RevisionId, RunnerId } from '../../shared/ids.ts';
import type { Headers } from '../../shared/protocol.ts';
import type { Priority } from './keys.ts';

/** Where a body rests: under its own key, or as a payload file. */
export type BodyRest =
  { kind: 'inline'; sizeBytes: number } | { kind: 'payload'; digest: Digest; sizeBytes: number };

/** The end of a request: what a caller gets. Also a failure of ours is told as a response with a code. */
export interface Terminal {
  /** HTTP status of the result. */
  status: number;
  headers: Headers;
  body: BodyRest;
  /** Set when the platform, not the app, ended it. */
  failure?: { code: FailureCode; message: string };
  at: number;
  /** Time on the runner, ms. */
  durationMs?: number;
  runnerId?: RunnerId;
  nodeId?: NodeId;
}

/** One execution on one runner, as it is known to the record. */
export interface Flight {
  /** Epoch of the owner that dispatched it. */
  epoch: number;
  /** Counts dispatches from 1. */
  number: number;
  nonce: string;
  runnerId: RunnerId;
  nodeId: NodeId;
  /** Wall time of the agent's start acknowledgement; absent until then. */
  startedAt?: number;
}

export type RequestState =
  | { kind: 'ready' }
  /** Waits for its next attempt until `notBefore`, wall ms. */
  | { kind: 'waiting'; notBefore: number }
  | { kind: 'flight'; flight: Flight }
  | { kind: 'done'; end: Terminal };

export interface RequestRecord {
  id: RequestId;
  app: string;
  revision: RevisionId;
  priority: Priority;
  /** Enqueue sequence of the app; a retry keeps it (Q4). */
  sequence: number;
  method: string;
  /** Path at the app, begins with `/`. */
  path: string;
  /** Query with its `?`, or empty. */
  query: string;
  headers: Headers;
  input: BodyRest;
  submittedAt: number;
  /** The caller's start timeout, ms (Q6). */
  startTimeoutMs?: number;
  noRetry: boolean;
  /** Attempts that counted (Q5). */
  attempts: number;
  /** Dispatches, counted or not. */
  dispatches: number;
  cancelRequestedAt?: number;
  lastFailure?: { code: FailureCode; message: string; at: number };
  state: RequestState;
}

export interface AppRecord {
  app: string;
  current: RevisionId;
  createdAt: number;
  updatedAt: number;
}

export interface RevisionRecord {
  app: string;
  revision: RevisionId;
  /** Counts revisions of the app from 1, for people. */
  number: number;
  spec: AppSpec;
  /** The image's digest when it was deployed: nodes never resolve a tag. */
  imageDigest?: Digest;
  createdAt: number;
}

export interface NodeRecord {
  nodeId: NodeId;
  name: string;
  incarnation: number;
  firstSeenAt: number;
  lastSeenAt: number;
  /** It was linked when this was written: then `lastSeenAt` is only when that began. */
  isLinked?: boolean;
}

export interface OwnerRecord {
  epoch: number;
  /** Which coordinator, for people. */
  holder: string;
  at: number;
}

export interface MetaRecord {
  format: 1;
  partitions: number;
}
