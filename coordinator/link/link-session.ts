// One link of one agent, from the open socket to its end.
//
//   challenging ──hello──► serving ──► closing          (from every state to closing, once)
//   hello timer            beats, looks, dial check
//
// L1  Nothing of the agent reaches the core before its hello was checked: version, shape, proof, in this order.
// L2  A link that was up comes down exactly once; one whose node came back on a newer link is replaced, not down.
// L3  Attempt messages become events only with the attempt that a genuine token names (Q3); others are dropped.
// L4  Silence is judged twice, the second time after the sockets had their turn: a late timer of ours is no silence of
//     theirs (survival F10, F11).
// L5  What is unsent is bounded: a peer that reads too slowly loses the link, not our memory.
import type { WebSocket } from 'ws';
import { z } from 'zod';
import type { Clock, Timer } from '../../shared/clock.ts';
import { asFailure, Failure, failures, type FailureCode } from '../../shared/failure.ts';
import { decodeFrame, encodeFrame } from '../../shared/frame.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import {
  checkMessage,
  commonVersion,
  protocolRange,
  type Body,
  type Message,
} from '../../shared/protocol.ts';
import {
  linkProof,
  readAttemptToken,
  sameText,
  type Attempt,
  type TokenKey,
} from '../../shared/token.ts';
import type { Event, LinkId } from '../core/event.ts';
import { Silence, type SilenceTiming } from './silence.ts';

export interface LinkTiming extends SilenceTiming {
  heartbeatMs: number;
}

export interface SessionParts {
  linkId: LinkId;
  nonce: string;
  leaseKey: TokenKey;
  tokenKey: TokenKey;
  /** The secret shared with agents; undefined: none is asked for. */
  token: string | undefined;
  timing: LinkTiming;
  clock: Clock;
  log: Log;
  /** Octets that came on the socket so far. */
  bytesRead: () => number;
}

/** What a session tells the registry of links. */
export interface SessionHost {
  /** A hello was checked; a failure refuses it (an older incarnation, not ready). */
  admit(session: LinkSession, hello: Body<'hello'>): Failure | undefined;
  /** The agent has its welcome. */
  welcomed(session: LinkSession): void;
  log(body: Body<'log'>): void;
  apply(event: Event): void;
  ended(session: LinkSession): void;
}

interface Serving {
  at: 'serving';
  hello: Body<'hello'>;
  version: number;
  silence: Silence;
  silent: boolean;
  /** Last number heard from the agent. */
  echo: number;
  /** Tokens of its hello that are not ours: nobody waits for those attempts. */
  strange: string[];
  welcomed: boolean;
  beat: Timer;
  look: Timer;
}

type State = { at: 'challenging'; timer: Timer } | Serving | { at: 'closing'; timer: Timer };

/** Close codes of our own, for those who look at the wire; the goodbye before it says the same in words. */
const CLOSE_CODES: Partial<Record<FailureCode, number>> = {
  PROTOCOL_UNSUPPORTED: 4406,
  UNAUTHORIZED: 4401,
  LINK_REPLACED: 4409,
  LINK_LOST: 4408,
  FRAME_INVALID: 1007,
  FRAME_TOO_LARGE: 1009,
  SHUTTING_DOWN: 1001,
};

/** How long the other side may take to close after our close frame. */
const CLOSE_MS = 2_000;
/** The sockets' turn between the two looks (L4). */
const DRAIN_MS = 100;

const helloVersions = z.object({ protocol: z.object({ min: z.number(), max: z.number() }) });

export class LinkSession {
  readonly linkId: LinkId;
  readonly leaseKey: TokenKey;
  readonly #parts: SessionParts;
  readonly #socket: WebSocket;
  readonly #host: SessionHost;
  #state: State;

  constructor(socket: WebSocket, parts: SessionParts, host: SessionHost) {
    this.linkId = parts.linkId;
    this.leaseKey = parts.leaseKey;
    this.#parts = parts;
    this.#socket = socket;
    this.#host = host;
    this.#state = {
      at: 'challenging',
      timer: parts.clock.after(limits.helloWithinMs, () =>
        this.end(new Failure('LINK_LOST', `no hello within ${limits.helloWithinMs} ms`)),
      ),
    };
    socket.on('message', (data, isBinary) => this.#onFrame(data, isBinary));
    socket.on('close', () => this.#onClose());
    socket.on('error', (error) => this.#onError(error));
    const auth = parts.token === undefined ? 'none' : 'token';
    this.#put('challenge', { nonce: parts.nonce, protocol: protocolRange, auth });
  }

  /** The hello of a link that is up. */
  get hello(): Body<'hello'> | undefined {
    return this.#state.at === 'serving' ? this.#state.hello : undefined;
  }

  get isChallenging(): boolean {
    return this.#state.at === 'challenging';
  }

  send(message: Message<'coordinator'>): void {
    if (this.#state.at === 'serving') this.#put(message.name, message.body);
  }

  welcome(body: Pick<Body<'welcome'>, 'revoke' | 'stop'>): void {
    const state = this.#state;
    if (state.at !== 'serving' || state.welcomed) return;
    const { token, timing, nonce, leaseKey } = this.#parts;
    const { nonce: agentNonce, nodeId } = state.hello;
    const about = { coordinatorNonce: nonce, agentNonce, nodeId };
    state.welcomed = true;
    this.#put('welcome', {
      protocol: state.version,
      ...(token === undefined ? {} : { proof: linkProof(token, 'coordinator', about) }),
      heartbeatMs: timing.heartbeatMs,
      lostMs: timing.lostMs,
      leaseKey,
      stop: body.stop,
      revoke: [...body.revoke, ...state.strange],
    });
    // The beats begin with the welcome: before it the agent expects nothing else.
    this.#beat();
    if (this.#state.at === 'serving') this.#host.welcomed(this);
  }

  /** Says goodbye and closes; `replaced` when the same node is up on a newer link (L2). */
  end(failure: Failure, replaced = false): void {
    if (this.#state.at === 'closing') return;
    this.#put('goodbye', { code: failure.code, message: failure.message });
    this.#toClosing(failure, replaced);
    this.#socket.close(CLOSE_CODES[failure.code] ?? 1011, failures[failure.code].doc.slice(0, 100));
  }

  #toClosing(failure: Failure, replaced: boolean): void {
    const before = this.#state;
    if (before.at === 'closing') return;
    const { clock, log } = this.#parts;
    const timer = clock.after(CLOSE_MS, () => this.#socket.terminate());
    this.#state = { at: 'closing', timer };
    const fields = { linkId: this.linkId, code: failure.code, reason: failure.message };
    if (before.at === 'challenging') {
      before.timer.cancel();
      log.event('link.refused', fields);
    } else {
      before.beat.cancel();
      before.look.cancel();
      const { nodeId } = before.hello;
      log.debug('a link ended', { ...fields, node: nodeId });
      if (!replaced) this.#host.apply({ type: 'linkDown', linkId: this.linkId, nodeId });
    }
    this.#host.ended(this);
  }

  #onClose(): void {
    this.#toClosing(new Failure('LINK_LOST', 'the agent closed the link'), false);
    if (this.#state.at === 'closing') this.#state.timer.cancel();
  }

  #onError(error: Error): void {
    // ws has sent its close frame (1002, 1007, 1009) and will close the socket.
    const isLong = 'code' in error && error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH';
    const failure = isLong
      ? new Failure('FRAME_TOO_LARGE', `a frame is over ${limits.frameBytes} bytes`)
      : new Failure('FRAME_INVALID', error.message, { cause: error });
    this.#toClosing(failure, false);
  }

  #put(name: Message<'coordinator'>['name'], body: unknown): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#socket.send(encodeFrame(name, body));
    if (this.#socket.bufferedAmount <= limits.linkBufferedBytes) return;
    const failure = new Failure('LINK_LOST', 'the agent reads too slowly'); // L5
    this.#toClosing(failure, false);
    this.#socket.terminate();
  }

  #onFrame(data: unknown, isBinary: boolean): void {
    if (this.#state.at === 'closing') return;
    try {
      if (!isBinary || !Buffer.isBuffer(data))
        throw new Failure('FRAME_INVALID', 'a frame is text');
      const [name, body] = decodeFrame(data);
      if (this.#state.at === 'challenging') return this.#onHello(this.#state, name, body);
      this.#state.silence.heard(this.#parts.clock.elapsed());
      const message = checkMessage('agent', name, body);
      if (message) this.#onMessage(this.#state, message);
      else this.#parts.log.debug('an unknown message was ignored', { name: name.slice(0, 64) });
    } catch (thrown) {
      const failure = asFailure(thrown);
      if (failure.code === 'INTERNAL') this.#parts.log.error('a link failed', { cause: failure });
      this.end(failure);
    }
  }

  #onHello(state: { timer: Timer }, name: string, body: unknown): void {
    if (name !== 'hello') throw new Failure('FRAME_INVALID', 'the first message is hello');
    const version = versionOf(body);
    const message = checkMessage('agent', name, body);
    if (message?.name !== 'hello') throw new Failure('FRAME_INVALID', 'the first message is hello');
    const hello = message.body;
    this.#checkProof(hello);
    const refused = this.#host.admit(this, hello);
    if (refused) return this.end(refused);
    state.timer.cancel();
    const { clock, timing } = this.#parts;
    const attempts: { attempt: Attempt; token: string }[] = [];
    const strange: string[] = [];
    for (const { token } of hello.attempts) {
      const attempt = this.#attemptOf(token);
      if (attempt) attempts.push({ attempt, token });
      else strange.push(token);
    }
    this.#state = {
      at: 'serving',
      hello,
      version,
      silence: new Silence(timing, clock.elapsed()),
      silent: false,
      echo: 0,
      strange,
      welcomed: false,
      beat: { cancel() {} },
      look: this.#lookLater(),
    };
    this.#host.apply({ type: 'linkUp', linkId: this.linkId, hello, attempts });
  }

  #checkProof(hello: Body<'hello'>): void {
    const { token, nonce } = this.#parts;
    if (token === undefined) return;
    const about = { coordinatorNonce: nonce, agentNonce: hello.nonce, nodeId: hello.nodeId };
    if (!sameText(hello.proof ?? '', linkProof(token, 'agent', about)))
      throw new Failure(
        'UNAUTHORIZED',
        'the token of the agent is not the one of this coordinator',
      );
  }

  #onMessage(state: Serving, message: Message<'agent'>): void {
    const { linkId } = this;
    const { nodeId } = state.hello;
    switch (message.name) {
      case 'hello':
        throw new Failure('FRAME_INVALID', 'a second hello on one link');
      case 'goodbye':
        this.#toClosing(new Failure(message.body.code, message.body.message), false);
        return this.#socket.close(1000);
      case 'heartbeat':
        state.echo = message.body.sequence;
        return state.silence.heardBeat(this.#parts.clock.elapsed(), message.body.echo);
      case 'runner':
      case 'images':
      case 'gpus':
        return this.#host.apply({ type: message.name, linkId, nodeId, message });
      case 'log':
        return this.#host.log(message.body);
      case 'started':
      case 'refused':
      case 'finished':
        return this.#onAttempt(nodeId, message);
      default:
        return message satisfies never;
    }
  }

  #onAttempt(
    nodeId: Body<'hello'>['nodeId'],
    message: Extract<Message<'agent'>, { name: 'started' | 'refused' | 'finished' }>,
  ): void {
    const { token } = message.body;
    const attempt = this.#attemptOf(token);
    // Nobody will ever acknowledge it, so the agent is told to forget it instead of saying it for ever (L3).
    if (!attempt) return this.#put('revoke', { token });
    const { linkId } = this;
    const about = { linkId, nodeId, attempt, token };
    if (message.name === 'started') return this.#host.apply({ type: 'started', ...about });
    if (message.name === 'refused')
      return this.#host.apply({ type: 'refused', ...about, failure: message.body.failure });
    const { outcome, durationMs } = message.body;
    this.#host.apply({ type: 'finished', ...about, outcome, durationMs });
  }

  #attemptOf(token: string): Attempt | undefined {
    const attempt = readAttemptToken(this.#parts.tokenKey, token);
    if (!attempt)
      this.#parts.log.warn('an attempt with a token that is not ours was dropped', {
        linkId: this.linkId,
      });
    return attempt;
  }

  #beat(): void {
    const state = this.#state;
    if (state.at !== 'serving') return;
    const { clock, timing } = this.#parts;
    const sequence = state.silence.beat(clock.elapsed());
    state.beat = clock.after(timing.heartbeatMs, () => this.#beat());
    this.#put('heartbeat', { sequence, echo: state.echo });
  }

  #lookLater(): Timer {
    const { clock, timing } = this.#parts;
    const everyMs = Math.max(20, Math.min(timing.heartbeatMs, timing.suspectMs / 10));
    return clock.after(everyMs, () => this.#look(false));
  }

  #look(second: boolean): void {
    const state = this.#state;
    if (state.at !== 'serving') return;
    const { clock, bytesRead, timing } = this.#parts;
    const hearing = state.silence.judge(clock.elapsed(), bytesRead());
    const { linkId } = this;
    const { nodeId } = state.hello;
    if (hearing === 'heard') {
      if (state.silent) this.#host.apply({ type: 'linkHeard', linkId, nodeId });
      state.silent = false;
    } else if (!second) {
      state.look = clock.after(DRAIN_MS, () => this.#look(true));
      return;
    } else if (hearing === 'lost') {
      return this.end(new Failure('LINK_LOST', `nothing was heard for ${timing.lostMs} ms`));
    } else if (!state.silent) {
      state.silent = true;
      this.#host.apply({ type: 'linkSilent', linkId, nodeId });
    }
    if (this.#state.at === 'serving') this.#state.look = this.#lookLater();
  }
}

/** Looked at before anything else of a hello, as the shape may differ between versions. */
function versionOf(body: unknown): number {
  const theirs = helloVersions.safeParse(body);
  if (!theirs.success) throw new Failure('FRAME_INVALID', 'hello.protocol: is malformed');
  const { protocol } = theirs.data;
  const version = commonVersion(protocolRange, protocol);
  if (version !== undefined) return version;
  const words = (range: { min: number; max: number }): string => `${range.min}..${range.max}`;
  throw new Failure(
    'PROTOCOL_UNSUPPORTED',
    `this coordinator speaks versions ${words(protocolRange)}, the agent ${words(protocol)}`,
  );
}
