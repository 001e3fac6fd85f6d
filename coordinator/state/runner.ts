// What the core believes of one runner. Its phase is a union whose members own what only they have; the state that people
// see derives from it (IDLE and RUNNING differ only in leases). S5: what is in flight is a set of leases, never a counter.
import type { FailureCode } from '../../shared/failure.ts';
import type { NodeId, RequestId, RunnerId } from '../../shared/ids.ts';
import type { RunnerState } from '../../shared/runner-state.ts';
import type { CallId } from '../core/event.ts';
import type { Shyness } from '../dispatch/shyness.ts';
import type { RevisionRecord } from '../store/records.ts';

export type RunnerPhase =
  /** Held back after failed starts of its app, until this monotonic ms. */
  | { kind: 'delayed'; until: number }
  /** No node yet. */
  | { kind: 'unplaced'; why: string }
  /** On a node, not ready. `PENDING` until the agent has said something. */
  | {
      kind: 'starting';
      node: NodeId;
      state: 'PENDING' | 'DOCKER_PULL' | 'SETUP';
      progress?: RunnerProgress;
    }
  | { kind: 'ready'; node: NodeId; idleSince: number | undefined }
  | { kind: 'ending'; node: NodeId; state: 'DRAINING' | 'TERMINATING'; why: string };

export interface RunnerProgress {
  what: string;
  doneBytes: number;
  totalBytes?: number;
}

/** Who holds a slot: a queued request or a direct call. */
export type LeaseHolder = RequestId | CallId;

export interface Runner {
  id: RunnerId;
  app: string;
  revision: RevisionRecord;
  slots: number;
  phase: RunnerPhase;
  leases: Set<LeaseHolder>;
  served: boolean;
  usedAt: number;
  /** The agent refused a moment ago. */
  shy: Shyness;
  gpus: string[];
  cpu: number;
  memoryBytes: number;
  /** Wall ms at which each state began. */
  states: { state: RunnerState; at: number }[];
}

/** A runner that is gone, as it is remembered for people. */
export interface EndedRunner {
  runner: Runner;
  node: NodeId | undefined;
  reason: string;
  failure?: { code: FailureCode; message: string };
}

export function stateOf(runner: Runner): RunnerState {
  switch (runner.phase.kind) {
    case 'delayed':
      return 'FAILURE_DELAY';
    case 'unplaced':
      return 'PENDING';
    case 'starting':
    case 'ending':
      return runner.phase.state;
    case 'ready':
      return runner.leases.size > 0 ? 'RUNNING' : 'IDLE';
  }
}

export function nodeOf(runner: Runner): NodeId | undefined {
  return 'node' in runner.phase ? runner.phase.node : undefined;
}
