// What the rest of the agent sees of the link to the coordinator: it can be written to while it stands. A message that
// is sent while no link stands is dropped, because the full-state hello of the next link says it again (DESIGN §9).
import type { Body, Message, SentBy } from '../../shared/protocol.ts';

export type SentByAgent = SentBy<'agent'>;

export interface Link {
  send<N extends SentByAgent>(name: N, body: Body<N>): void;
  /** Resolves when little is unsent, so that a long resend does not outrun the socket; also when the link ends. */
  drained(): Promise<void>;
}

/** The state that every link begins with; the handshake adds version, nonce and proof. */
export type HelloState = Omit<Body<'hello'>, 'protocol' | 'nonce' | 'proof'>;

/** What a link serves. */
export interface LinkServer {
  hello(): HelloState;
  /** The link stands; it may be used until `unlinked`. */
  linked(link: Link, welcome: Body<'welcome'>): void;
  received(message: Message<'coordinator'>): void;
  unlinked(): void;
}
