// What the API may ask of the core, and the plain answers. A query changes nothing and shows only what people and
// programs may see. Requests themselves are read from the store, which is never ahead of what is durable.
import type { AppSpec } from '../../shared/app-spec.ts';
import type { Digest } from '../../shared/digest.ts';
import type { FailureCode } from '../../shared/failure.ts';
import type { NodeId, RequestId, RevisionId, RunnerId } from '../../shared/ids.ts';
import type { GpuReport } from '../../shared/protocol.ts';
import type { RunnerState } from '../../shared/runner-state.ts';
import type { Priority } from '../store/keys.ts';

export interface RunnerView {
  id: RunnerId;
  app: string;
  revision: RevisionId;
  node?: { id: NodeId; name: string };
  state: RunnerState;
  /** Why it is in this state: what it waits for, or why it ended. */
  reason?: string;
  progress?: { what: string; doneBytes: number; totalBytes?: number };
  slots: number;
  /** Requests and direct calls on it now. */
  inFlight: number;
  requests: RequestId[];
  gpus: string[];
  /** Wall ms at which each state began, in order. */
  states: { state: RunnerState; at: number }[];
  failure?: { code: FailureCode; message: string };
  /** Seconds until keep_alive ends it; absent while it works or must stay. */
  expiresInSeconds?: number;
}

export interface AppView {
  app: string;
  revision: RevisionId;
  revisionNumber: number;
  spec: AppSpec;
  imageDigest?: Digest;
  inactive: string[];
  queued: number;
  inFlight: number;
  runners: number;
  /** Runners that scaling wants now. */
  wanted: number;
  createdAt: number;
  updatedAt: number;
  /** Why the next queued request waits; absent when nothing does. */
  waiting?: WaitReason;
  failures: number;
}

export interface NodeView {
  id: NodeId;
  name: string;
  state: 'ready' | 'suspect' | 'lost' | 'away';
  version?: string;
  /** `host:port` for direct calls; `unreachable` says why there are none. */
  advertise?: string;
  unreachable?: string;
  labels: Record<string, string>;
  gpus?: GpuReport;
  gpusFree: number;
  cpu: { total: number; free: number };
  memoryBytes: { total: number; free: number };
  drivers: { name: string; unavailable?: string }[];
  images: Digest[];
  runners: number;
  host: Record<string, string | number | boolean>;
  lastSeenAt: number;
}

/** Why a request waits: a code that programs may read, words for people. */
export interface WaitReason {
  code:
    | 'dispatching'
    | 'runners_busy'
    | 'max_concurrency'
    | 'scaling_delay'
    | 'no_node'
    | 'no_room'
    | 'placing'
    | 'pulling'
    | 'setup'
    | 'failure_delay'
    | 'retry_delay'
    | 'holding_after_restart';
  text: string;
  /** Wall ms at which it will change by itself. */
  until?: number;
}

export interface Queries {
  apps: { ask: Record<never, never>; answer: AppView[] };
  app: { ask: { app: string }; answer: AppView | undefined };
  /** Live runners first; with `ended`, those that ended lately too. */
  runners: { ask: { app?: string; ended?: boolean }; answer: RunnerView[] };
  nodes: { ask: Record<never, never>; answer: NodeView[] };
  /** Requests ahead of this one, and why it waits. */
  position: {
    ask: { app: string; priority: Priority; sequence: number; requestId: RequestId };
    answer: { position: number; waiting: WaitReason };
  };
  counts: { ask: Record<never, never>; answer: CoreCounts };
}

/** Numbers for /metrics. */
export interface CoreCounts {
  apps: {
    app: string;
    queued: number;
    inFlight: number;
    runners: Partial<Record<RunnerState, number>>;
  }[];
  nodes: Record<NodeView['state'], number>;
  linksUp: number;
  epoch: number;
}

export type QueryName = keyof Queries;
