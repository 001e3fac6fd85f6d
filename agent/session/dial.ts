// One attempt at a link: dial → challenge → hello → welcome → serve → end. Never rejects: how it went is a value, and
// what to do about it is keep.ts's business.
//
//   dialling ──► greeting ──► serving ──► ended         (from every state to ended, once)
//   socket       + timer      + heartbeat, watch
//
//   L1  Nothing is sent before the challenge, and nothing of the node's state before the protocol is agreed on.
//   L2  With a token set, no message is served before the coordinator has proved that it knows it too.
//   L3  A frame that breaks the table ends the link with a goodbye; it never ends the agent.
//   L4  Silence is measured by us and in both directions: nothing heard for lostMs, or our own numbers not echoed for
//       lostMs, ends the link. A stall of our own event loop is not silence: the sockets get a turn first.
import { WebSocket, type RawData } from 'ws';
import type { Chance } from '../../shared/chance.ts';
import type { Clock, Timer } from '../../shared/clock.ts';
import { asFailure, Failure, type FailureCode } from '../../shared/failure.ts';
import { decodeFrame, encodeFrame } from '../../shared/frame.ts';
import { hexOfBytes } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import {
  checkMessage,
  commonVersion,
  protocolRange,
  type Body,
  type Message,
} from '../../shared/protocol.ts';
import { linkProof, sameText } from '../../shared/token.ts';
import type { Link, LinkServer, SentByAgent } from './link.ts';

export interface DialParts {
  /** `ws://host:port/agent` */
  url: string;
  /** The secret shared with the coordinator; undefined: none is asked for. */
  token: string | undefined;
  clock: Clock;
  chance: Chance;
  server: LinkServer;
}

export type LinkEnd =
  /** The link stood for `heldMs`. */
  | { kind: 'served'; heldMs: number; failure: Failure }
  /** The coordinator will say the same next time, until somebody mends it. */
  | { kind: 'refused'; failure: Failure }
  | { kind: 'retryable'; failure: Failure }
  /** Our own signal ended it. */
  | { kind: 'stopped' };

const FATAL: readonly FailureCode[] = ['PROTOCOL_UNSUPPORTED', 'UNAUTHORIZED', 'LINK_REPLACED'];
/** Unsent bytes below which a resend goes on. */
const DRAINED_BYTES = 256 * 1024;

export function dial(parts: DialParts, signal: AbortSignal): Promise<LinkEnd> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve({ kind: 'stopped' });
    new Dial(parts, signal, resolve);
  });
}

interface Serving {
  at: 'serving';
  sinceMs: number;
  welcome: Body<'welcome'>;
  heartbeat: Timer;
  sequence: number;
  /** Last number heard from the coordinator. */
  heard: number;
  heardAtMs: number;
  /** Last number of ours that came back. */
  echoed: number;
  echoedAtMs: number;
  tickDueMs: number;
  waiters: (() => void)[];
}

type State =
  | { at: 'dialling'; timer: Timer }
  | { at: 'greeting'; timer: Timer; coordinatorNonce: string; agentNonce: string; nodeId: string }
  | Serving
  | { at: 'ended' };

class Dial {
  readonly #parts: DialParts;
  readonly #socket: WebSocket;
  readonly #settle: (end: LinkEnd) => void;
  #state: State;

  constructor(parts: DialParts, signal: AbortSignal, resolve: (end: LinkEnd) => void) {
    this.#parts = parts;
    // In a variable because the published types lack the two limits against fragments (ws 8.23 has them).
    const options = {
      maxPayload: limits.frameBytes,
      maxFragments: limits.frameFragments,
      maxBufferedChunks: limits.frameBufferedChunks,
      perMessageDeflate: false,
      followRedirects: false,
      handshakeTimeout: limits.helloWithinMs,
    };
    this.#socket = new WebSocket(parts.url, options);
    const onAbort = (): void =>
      this.#goodbye(new Failure('SHUTTING_DOWN', 'the agent stops'), true);
    this.#settle = (end) => {
      signal.removeEventListener('abort', onAbort);
      resolve(end);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    this.#state = { at: 'dialling', timer: this.#within('nothing came from the coordinator') };
    this.#socket.on('message', (data, isBinary) => this.#onFrame(data, isBinary));
    this.#socket.on('close', () =>
      this.#end(new Failure('LINK_LOST', 'the coordinator closed the link')),
    );
    this.#socket.on('error', (error) => this.#end(failureOf(error)));
    this.#socket.on('unexpected-response', (request, response) => {
      request.destroy();
      this.#end(failureOfStatus(response.statusCode ?? 0));
    });
  }

  #within(what: string): Timer {
    const { clock } = this.#parts;
    return clock.after(2 * limits.helloWithinMs, () => this.#end(new Failure('LINK_LOST', what)));
  }

  #onFrame(data: RawData, isBinary: boolean): void {
    if (this.#state.at === 'ended') return;
    try {
      if (!isBinary) throw new Failure('FRAME_INVALID', 'a frame is text');
      const [name, body] = decodeFrame(bytesOf(data));
      const message = checkMessage('coordinator', name, body);
      if (this.#state.at === 'serving') this.#state.heardAtMs = this.#parts.clock.elapsed();
      // Unknown: a newer coordinator may send it, and it is ignored.
      if (message) this.#onMessage(message);
    } catch (thrown) {
      this.#goodbye(asFailure(thrown, 'INTERNAL'), false); // L3
    }
  }

  #onMessage(message: Message<'coordinator'>): void {
    if (message.name === 'goodbye')
      return this.#end(new Failure(message.body.code, message.body.message));
    const state = this.#state;
    switch (state.at) {
      case 'dialling':
        if (message.name === 'challenge') return this.#greet(message.body);
        break;
      case 'greeting':
        if (message.name === 'welcome') return this.#serve(message.body, state);
        break;
      case 'serving':
        if (message.name === 'challenge' || message.name === 'welcome') break;
        if (message.name === 'heartbeat') return this.#onHeartbeat(state, message.body);
        return this.#parts.server.received(message);
      case 'ended':
        return;
    }
    throw new Failure('FRAME_INVALID', `message ${message.name} came while ${state.at}`);
  }

  #greet(challenge: Body<'challenge'>): void {
    const { chance, token, server } = this.#parts;
    if (commonVersion(challenge.protocol, protocolRange) === undefined) {
      const [theirs, ours] = [challenge.protocol, protocolRange];
      throw new Failure(
        'PROTOCOL_UNSUPPORTED',
        `the coordinator speaks protocol ${theirs.min} to ${theirs.max}, this agent ${ours.min} to ${ours.max}; upgrade the older one`,
      );
    }
    if (challenge.auth === 'token' && token === undefined)
      throw new Failure('UNAUTHORIZED', 'the coordinator asks for a token; set --token');
    if (this.#state.at === 'dialling') this.#state.timer.cancel();
    const hello = server.hello();
    const agentNonce = hexOfBytes(chance.bytes(16, 'link nonce'));
    const coordinatorNonce = challenge.nonce;
    const { nodeId } = hello;
    const timer = this.#within('the coordinator did not answer the hello');
    this.#state = { at: 'greeting', timer, coordinatorNonce, agentNonce, nodeId };
    const nonces = { coordinatorNonce, agentNonce, nodeId };
    const proof = token === undefined ? {} : { proof: linkProof(token, 'agent', nonces) };
    this.#write('hello', { ...hello, protocol: protocolRange, nonce: agentNonce, ...proof });
  }

  #serve(welcome: Body<'welcome'>, greeting: Extract<State, { at: 'greeting' }>): void {
    const { token, clock, server } = this.#parts;
    if (token !== undefined) {
      const expected = linkProof(token, 'coordinator', greeting);
      if (welcome.proof === undefined || !sameText(welcome.proof, expected))
        // L2
        throw new Failure('UNAUTHORIZED', 'the coordinator did not prove that it knows the token');
    }
    greeting.timer.cancel();
    const nowMs = clock.elapsed();
    const serving: Serving = {
      at: 'serving',
      sinceMs: nowMs,
      welcome,
      heartbeat: { cancel() {} },
      sequence: 0,
      heard: 0,
      heardAtMs: nowMs,
      echoed: 0,
      echoedAtMs: nowMs,
      tickDueMs: nowMs,
      waiters: [],
    };
    this.#state = serving;
    this.#tick(serving);
    server.linked(this.#link(), welcome);
  }

  #onHeartbeat(state: Serving, beat: Body<'heartbeat'>): void {
    state.heard = Math.max(state.heard, beat.sequence);
    if (beat.echo <= state.echoed) return;
    state.echoed = beat.echo;
    state.echoedAtMs = this.#parts.clock.elapsed();
  }

  #tick(state: Serving): void {
    if (this.#state !== state) return;
    const { clock } = this.#parts;
    const nowMs = clock.elapsed();
    const { heartbeatMs, lostMs } = state.welcome;
    const stalled = nowMs - state.tickDueMs > heartbeatMs;
    if (!stalled && nowMs - state.heardAtMs > lostMs)
      return this.#end(new Failure('LINK_LOST', `nothing was heard for ${lostMs} ms`)); // L4
    if (!stalled && nowMs - state.echoedAtMs > lostMs)
      return this.#end(
        new Failure('LINK_LOST', `the coordinator did not hear us for ${lostMs} ms`),
      );
    state.sequence += 1;
    this.#write('heartbeat', { sequence: state.sequence, echo: state.heard });
    state.tickDueMs = nowMs + heartbeatMs;
    state.heartbeat = clock.after(heartbeatMs, () => this.#tick(state));
  }

  #link(): Link {
    return {
      send: (name, body) => {
        if (this.#state.at === 'serving') this.#write(name, body);
      },
      drained: () =>
        new Promise((resolve) => {
          const state = this.#state;
          if (state.at !== 'serving' || this.#socket.bufferedAmount < DRAINED_BYTES) resolve();
          else state.waiters.push(resolve);
        }),
    };
  }

  #write<N extends SentByAgent>(name: N, body: Body<N>): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    if (this.#socket.bufferedAmount > limits.linkBufferedBytes)
      return this.#end(new Failure('LINK_LOST', 'the coordinator does not read what we send'));
    this.#socket.send(encodeFrame(name, body), { binary: true }, () => this.#onSent());
  }

  #onSent(): void {
    const state = this.#state;
    if (state.at !== 'serving' || state.waiters.length === 0) return;
    if (this.#socket.bufferedAmount >= DRAINED_BYTES) return;
    for (const resume of state.waiters.splice(0)) resume();
  }

  #goodbye(failure: Failure, isOurs: boolean): void {
    if (this.#state.at === 'ended') return;
    const message = failure.message.slice(0, 4096);
    this.#write('goodbye', { code: failure.code, message });
    this.#end(failure, isOurs ? { kind: 'stopped' } : undefined);
  }

  #end(failure: Failure, given?: LinkEnd): void {
    const state = this.#state;
    if (state.at === 'ended') return;
    this.#state = { at: 'ended' };
    if (state.at === 'serving') state.heartbeat.cancel();
    else state.timer.cancel();
    // A close waits for the other side's; one that is gone would hold the socket for half a minute.
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.close(1000);
    const cut = this.#parts.clock.after(1_000, () => this.#socket.terminate());
    if (this.#socket.readyState === WebSocket.CONNECTING) this.#socket.terminate();
    this.#socket.once('close', () => cut.cancel());
    if (state.at === 'serving') {
      this.#parts.server.unlinked();
      for (const resume of state.waiters) resume();
    }
    this.#settle(given ?? this.#outcome(failure, state));
  }

  #outcome(failure: Failure, state: State): LinkEnd {
    if (FATAL.includes(failure.code)) return { kind: 'refused', failure };
    if (state.at !== 'serving') return { kind: 'retryable', failure };
    return { kind: 'served', heldMs: this.#parts.clock.elapsed() - state.sinceMs, failure };
  }
}

function bytesOf(data: RawData): Uint8Array {
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  return Array.isArray(data) ? Buffer.concat(data) : data;
}

function failureOf(error: Error): Failure {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH')
    return new Failure(
      'FRAME_TOO_LARGE',
      `the coordinator sent a frame over ${limits.frameBytes} bytes`,
    );
  if (code.startsWith('WS_ERR_'))
    return new Failure('FRAME_INVALID', 'the coordinator broke the WebSocket protocol', {
      cause: error,
    });
  return new Failure('UNAVAILABLE', 'the coordinator cannot be reached', { cause: error });
}

function failureOfStatus(status: number): Failure {
  if (status === 401 || status === 403)
    return new Failure('UNAUTHORIZED', `the coordinator refused the link with HTTP ${status}`);
  if (status === 426)
    return new Failure('PROTOCOL_UNSUPPORTED', 'the coordinator refused the link with HTTP 426');
  return new Failure('UNAVAILABLE', `the address answered HTTP ${status}; is it a coordinator?`);
}
