// Everything that can happen to the core, as plain data. `apply` takes one at a time. An event names the keys whose
// values must be loaded first (`keysOf`), as the core itself never waits.
import type { AppSpec } from '../../shared/app-spec.ts';
import type { Digest } from '../../shared/digest.ts';
import type { NodeId, RequestId, RunnerId } from '../../shared/ids.ts';
import type { Body, Headers, Message } from '../../shared/protocol.ts';
import type { Attempt } from '../../shared/token.ts';
import type { Priority } from '../store/keys.ts';
import { keys } from '../store/keys.ts';

/** Names who waits for the answer; the shell gives them out. */
export type ReplyId = number;
/** One connection of an agent; never used twice in one life of the coordinator. */
export type LinkId = number;
/** One direct call, from its arrival to its end. */
export type CallId = number;

/** A body as it arrived: small ones in memory, large ones already stored as a payload file. */
export type NewBody =
  { kind: 'inline'; bytes: Uint8Array } | { kind: 'payload'; digest: Digest; sizeBytes: number };

export type Event =
  // From callers.
  | {
      type: 'submit';
      replyTo: ReplyId;
      app: string;
      method: string;
      path: string;
      query: string;
      headers: Headers;
      input: NewBody;
      priority: Priority;
      noRetry: boolean;
      startTimeoutMs?: number;
      /** Refuse with QUEUE_FULL when more requests than this wait. */
      maxQueueLength?: number;
    }
  | { type: 'cancel'; replyTo: ReplyId; requestId: RequestId; app: string }
  /** A direct call wants a slot; answered when it has one, or when it cannot. */
  | { type: 'call'; replyTo: ReplyId; callId: CallId; app: string; startTimeoutMs?: number }
  /** The direct call is over, or its caller went away while it waited. */
  | { type: 'callEnded'; callId: CallId; refusedByAgent?: boolean }
  // From operators.
  | { type: 'deploy'; replyTo: ReplyId; spec: AppSpec; imageDigest?: Digest }
  | { type: 'stopRunner'; replyTo: ReplyId; runnerId: RunnerId; how: 'stop' | 'kill' }
  // From agents.
  | {
      type: 'linkUp';
      linkId: LinkId;
      hello: Body<'hello'>;
      attempts: { attempt: Attempt; token: string }[];
    }
  | { type: 'linkDown'; linkId: LinkId; nodeId: NodeId }
  /** Nothing was heard on the link for the suspect time; `heard` again. */
  | { type: 'linkSilent' | 'linkHeard'; linkId: LinkId; nodeId: NodeId }
  /** Whether the coordinator can dial the agent's HTTP: direct calls go only to such nodes. */
  | { type: 'nodeDialled'; linkId: LinkId; nodeId: NodeId; reachable: boolean; reason?: string }
  | {
      type: 'runner' | 'images' | 'gpus';
      linkId: LinkId;
      nodeId: NodeId;
      message: Message<'agent'>;
    }
  /** Attempt messages carry the attempt that their token proved (Q3). */
  | { type: 'started'; linkId: LinkId; nodeId: NodeId; attempt: Attempt; token: string }
  | {
      type: 'refused';
      linkId: LinkId;
      nodeId: NodeId;
      attempt: Attempt;
      token: string;
      failure: Body<'goodbye'>;
    }
  | {
      type: 'finished';
      linkId: LinkId;
      nodeId: NodeId;
      attempt: Attempt;
      token: string;
      outcome: Body<'finished'>['outcome'];
      durationMs: number;
    }
  // From the core itself, through the shell.
  /** Dispatch this request to the runner that holds a slot for it; the record is loaded. */
  | { type: 'dispatch'; requestId: RequestId; runnerId: RunnerId }
  /** A node is lost, or came back without this attempt: place the request again. */
  | {
      type: 'requeue';
      requestId: RequestId;
      attempt: { epoch: number; number: number };
      why: string;
      /** Only if its node is still away when this is applied. */
      unlessBack?: boolean;
    }
  /** A retry is due, or a start timeout ran out. */
  | { type: 'due'; requestId: RequestId; kind: 'retry' | 'start' }
  /** More of a ready queue, in order. */
  | {
      type: 'scanned';
      app: string;
      priority: Priority;
      entries: { sequence: number; requestId: RequestId }[];
      complete: boolean;
    }
  /** The time that `wakeAt` asked for has come. */
  | { type: 'tick' };

export type EventOf<T extends Event['type']> = Extract<Event, { type: T }>;

/** Keys whose values `apply` needs for this event. */
export function keysOf(event: Event): string[] {
  switch (event.type) {
    case 'cancel':
    case 'dispatch':
    case 'requeue':
    case 'due':
      return [keys.request(event.requestId)];
    case 'started':
    case 'refused':
    case 'finished':
      return [keys.request(event.attempt.requestId)];
    case 'linkUp':
      return event.attempts.map(({ attempt }) => keys.request(attempt.requestId));
    default:
      return [];
  }
}
