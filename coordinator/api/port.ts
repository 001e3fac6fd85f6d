// What the HTTP API sees of the coordinator: commands that are answered once durable, queries, reads of records and
// bodies, and changes to watch. Plain cloneable data only, so that HTTP can move to worker threads (DESIGN §2).
import type { RequestId, RunnerId } from '../../shared/ids.ts';
import type { Answers } from '../core/act.ts';
import type { CallId, Event } from '../core/event.ts';
import type { Queries, QueryName } from '../core/query.ts';
import type { RequestRecord, RevisionRecord, Terminal } from '../store/records.ts';
import type { RevisionId } from '../../shared/ids.ts';

/** Commands: events that somebody waits for, without the `replyTo` that the shell adds. */
export type CommandName = keyof Answers;
export type Command<C extends CommandName> = Omit<Extract<Event, { type: C }>, 'replyTo' | 'type'>;

export interface CoordinatorPort {
  /** @throws Failure STORE_FAILED (outcome unknown), SHUTTING_DOWN */
  ask<C extends CommandName>(command: C, fields: Command<C>): Promise<Answers[C]>;
  /** A direct call id, for `call` and `callEnded`. */
  newCallId(): CallId;
  callEnded(callId: CallId, refusedByAgent?: boolean): void;
  query<Q extends QueryName>(query: Q, ask: Queries[Q]['ask']): Promise<Queries[Q]['answer']>;
  /** The record as it is durable on disk. */
  readRequest(id: RequestId): Promise<RequestRecord | undefined>;
  /** Newest first. */
  listRequests(filter: { app?: string; limit: number }): Promise<RequestRecord[]>;
  readRevision(app: string, revision: RevisionId): Promise<RevisionRecord | undefined>;
  /** Revisions of an app, newest first. */
  listRevisions(app: string): Promise<RevisionRecord[]>;
  /** Body of a finished request, streamed when it is a file. */
  openOutput(id: RequestId, end: Terminal): Promise<AsyncIterable<Uint8Array>>;
  openInput(record: RequestRecord): Promise<AsyncIterable<Uint8Array>>;
  /** Calls back after each durable change of the request; returns how to stop. */
  watch(id: RequestId, changed: () => void): () => void;
  /** Output of a runner, from its agent. @throws Failure RUNNER_GONE, LINK_LOST */
  readLog(
    runnerId: RunnerId,
    offset: number,
    maxBytes: number,
    signal?: AbortSignal,
  ): Promise<{ offset: number; bytes: Uint8Array; end: number; ended: boolean }>;
  /** Whether requests can be accepted; `no` says why not. */
  ready(): { yes: true } | { yes: false; no: string };
}
