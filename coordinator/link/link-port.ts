// The two sides of the agent links: what they need from the shell, and what the shell may do with them.
import type { Failure } from '../../shared/failure.ts';
import type { NodeId, RunnerId } from '../../shared/ids.ts';
import type { Body, Message } from '../../shared/protocol.ts';
import type { TokenKey } from '../../shared/token.ts';
import type { Event, LinkId } from '../core/event.ts';

/** What the links need. */
export interface LinkPort {
  /** Key of attempt tokens: a token that it did not make never becomes an event (Q3). */
  readonly tokenKey: TokenKey;
  apply(event: Event): void;
  newLinkId(): LinkId;
  /** Whether a hello can be taken now; `no` is told to the agent, which dials again later. */
  ready(): { yes: true } | { yes: false; no: string };
}

export interface LogPiece {
  offset: number;
  bytes: Uint8Array;
  /** Offset behind the last byte there is. */
  end: number;
  /** Nothing will be added. */
  ended: boolean;
}

/** What the shell may do. Calls about a link that is gone do nothing: its `linkDown` is on its way. */
export interface Links {
  send(linkId: LinkId, message: Message<'coordinator'>): void;
  /** Answers a hello: the link adds version, proof, timing and lease key. */
  welcome(linkId: LinkId, body: Pick<Body<'welcome'>, 'revoke' | 'stop'>): void;
  /** Says goodbye with this failure and closes; `linkDown` comes as for every other end. */
  close(linkId: LinkId, failure: Failure): void;
  /** Closes every link, e.g. when the core was thrown away or the process stops. */
  closeAll(failure: Failure): void;
  /** Key of lease tokens on this link; undefined when the link is gone. */
  leaseKeyOf(linkId: LinkId): TokenKey | undefined;
  linkOf(nodeId: NodeId): LinkId | undefined;
  /** Asks the agent for output of a runner. @throws Failure RUNNER_GONE, LINK_LOST */
  readLog(
    linkId: LinkId,
    runnerId: RunnerId,
    offset: number,
    maxBytes: number,
    signal?: AbortSignal,
  ): Promise<LogPiece>;
}
