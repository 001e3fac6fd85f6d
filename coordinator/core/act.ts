// Everything that the core wants done, as plain data. Acts are performed only after the writes of the same step are
// committed, in order. Writes are `sync` or `soft` (DESIGN §2).
import type { EventName } from '../../shared/events.ts';
import type { FailureCode } from '../../shared/failure.ts';
import type { NodeId, RequestId, RevisionId, RunnerId } from '../../shared/ids.ts';
import type { Message } from '../../shared/protocol.ts';
import type { Priority } from '../store/keys.ts';
import type { Durability } from '../store/store.ts';
import type { Event, LinkId, ReplyId } from './event.ts';

/** A write as the core says it; the shell encodes it and adds the epoch. `value` undefined deletes. */
export interface Write {
  partition: number | undefined;
  key: string;
  /** A record (plain data), or raw bytes. */
  value: unknown;
  durability: Durability;
}

/** A slot for a direct call. */
export interface GrantedCall {
  runnerId: RunnerId;
  nodeId: NodeId;
  /** `host:port` of the agent. */
  address: string;
  lease: string;
  requestTimeoutMs: number;
}

/** Answers to those who asked. */
export interface Answers {
  submit: { requestId: RequestId; position: number } | { refused: FailureCode; message: string };
  cancel: 'requested' | 'already_completed' | 'not_found';
  call:
    | {
        runnerId: RunnerId;
        nodeId: NodeId;
        address: string;
        lease: string;
        requestTimeoutMs: number;
      }
    | { refused: FailureCode; message: string };
  deploy: { app: string; revision: RevisionId; number: number; inactive: string[] };
  stopRunner: 'stopping' | 'not_found';
}

export type Act =
  | { act: 'reply'; to: ReplyId; answer: Answers[keyof Answers] }
  /** Answers a direct call; the shell mints the lease token with the key of that link. */
  | {
      act: 'lease';
      to: ReplyId;
      linkId: LinkId;
      leaseId: string;
      answer: Omit<GrantedCall, 'lease'>;
    }
  /** `inputOf`: the shell loads the inline input of this request and puts it into the message (assign). */
  | { act: 'send'; linkId: LinkId; message: Message<'coordinator'>; inputOf?: RequestId }
  /** Opens the link after its hello; the link adds its proof, its lease key and its timing. */
  | { act: 'welcome'; linkId: LinkId; revoke: string[]; stop: RunnerId[] }
  /** Something that callers may watch changed. */
  | { act: 'notify'; requestId: RequestId }
  /** Read the ready queue after `afterSequence` and come back with `scanned`. */
  | { act: 'scan'; app: string; priority: Priority; afterSequence: number; limit: number }
  /** Load the keys of this event, then apply it. */
  | { act: 'then'; event: Event }
  | { act: 'record'; name: EventName; fields: Record<string, unknown> };

/** What one `apply` gives. */
export interface Step {
  writes: Write[];
  acts: Act[];
  /** Monotonic time (`Clock.elapsed`) at which the core wants a `tick`; undefined: nothing is due. */
  wakeAt: number | undefined;
}
