// What the core knows of one app: its revisions, its waiting requests, its direct callers, its runners.
import type { RevisionId, RunnerId } from '../../shared/ids.ts';
import { firstMachine, type AppSpec } from '../../shared/app-spec.ts';
import type { CallId, ReplyId } from '../core/event.ts';
import type { PlaceNeed } from '../placement/place.ts';
import { ReadyQueue } from '../queue/ready-queue.ts';
import { noFailures, type StartFailures } from '../scale/failure-delay.ts';
import type { AppRecord, RevisionRecord } from '../store/records.ts';

/** A direct call that waits for a slot. */
export interface WaitingCall {
  callId: CallId;
  replyTo: ReplyId;
  /** Wall ms, to be fair to queued requests, whose ids carry theirs. */
  arrivedAt: number;
}

export interface App {
  record: AppRecord;
  revision: RevisionRecord;
  /** Last enqueue sequence given out. */
  sequence: number;
  /** By priority: normal, low. */
  ready: [ReadyQueue, ReadyQueue];
  calls: WaitingCall[];
  runners: Set<RunnerId>;
  /** Requests and calls that hold a slot. */
  inFlight: number;
  failures: StartFailures;
  shortSince: number | undefined;
  wanted: number;
}

export function newApp(record: AppRecord, revision: RevisionRecord): App {
  return {
    record,
    revision,
    sequence: 0,
    ready: [new ReadyQueue(), new ReadyQueue()],
    calls: [],
    runners: new Set(),
    inFlight: 0,
    failures: noFailures,
    shortSince: undefined,
    wanted: 0,
  };
}

export function queuedOf(app: App): number {
  return app.ready[0].depth + app.ready[1].depth;
}

/** What a runner of this revision needs of a node. */
export function needOf(revision: {
  spec: AppSpec;
  imageDigest?: PlaceNeed['imageDigest'];
  revision: RevisionId;
}): PlaceNeed {
  const need: PlaceNeed = {
    driver: revision.spec.image ? 'runc' : 'process',
    machine: firstMachine(revision.spec),
  };
  return revision.imageDigest ? { ...need, imageDigest: revision.imageDigest } : need;
}
