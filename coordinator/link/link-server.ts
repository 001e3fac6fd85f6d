// All agent links of this coordinator: takes over sockets at `/agent`, keeps which node is on which link, and reads logs
// over them. What happens on one link is link-session.ts.
//
// N1  At most one link per node is up. The same node again: a higher or equal incarnation replaces (a restart, or the
//     same process dialling anew), a lower one is refused; who loses hears LINK_REPLACED.
// N2  At most `linksBeforeHello` links are in their challenge, so that strangers cannot hold memory.
// N3  A log read settles exactly once: answered, timed out, aborted, or its link gone.
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type WebSocket } from 'ws';
import type { Chance } from '../../shared/chance.ts';
import { sleep, type Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { hexOfBytes, type NodeId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import type { Body } from '../../shared/protocol.ts';
import type { LinkId } from '../core/event.ts';
import { dialProblem } from './dial-check.ts';
import type { LinkPort, Links, LogPiece } from './link-port.ts';
import { LinkSession, type LinkTiming, type SessionHost } from './link-session.ts';

export interface LinkServerParts {
  port: LinkPort;
  token: string | undefined;
  timing: LinkTiming;
  clock: Clock;
  chance: Chance;
  log: Log;
  /** Milliseconds for an agent to answer; smaller in tests. */
  dialMs?: number;
  redialMs?: number;
  readLogMs?: number;
}

export interface LinkServer extends Links {
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void;
}

const DIAL_MS = 3_000;
const REDIAL_MS = 10_000;
const READ_LOG_MS = 10_000;

export function openLinkServer(parts: LinkServerParts): LinkServer {
  return new AgentLinks(parts);
}

interface LogRead {
  linkId: LinkId;
  answer: (body: Body<'log'>) => void;
  fail: (failure: Failure) => void;
}

class AgentLinks implements LinkServer, SessionHost {
  readonly #parts: LinkServerParts;
  readonly #server: WebSocketServer;
  readonly #sessions = new Map<LinkId, { session: LinkSession; gone: AbortController }>();
  readonly #byNode = new Map<NodeId, LinkSession>();
  readonly #reads = new Map<string, LogRead>();
  #lastRead = 0;
  #challenging = 0;

  constructor(parts: LinkServerParts) {
    this.#parts = parts;
    // In a variable because the published types lag behind the limits against fragments (T12).
    const options = {
      noServer: true,
      clientTracking: false,
      maxPayload: limits.frameBytes,
      maxFragments: limits.frameFragments,
      maxBufferedChunks: limits.frameBufferedChunks,
      perMessageDeflate: false,
    } as const;
    this.#server = new WebSocketServer(options);
  }

  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    const ready = this.#parts.port.ready();
    if (!ready.yes) return refuse(socket, ready.no);
    if (this.#challenging >= limits.linksBeforeHello)
      return refuse(socket, `${limits.linksBeforeHello} agents are saying hello already`);
    this.#challenging += 1;
    socket.once('close', () => {
      if (!accepted) this.#challenging -= 1;
    });
    let accepted = false;
    this.#server.handleUpgrade(req, socket, head, (webSocket) => {
      accepted = true;
      this.#open(webSocket, req);
    });
  }

  #open(webSocket: WebSocket, req: IncomingMessage): void {
    const { port, token, timing, clock, chance, log } = this.#parts;
    const linkId = port.newLinkId();
    const gone = new AbortController();
    const session = new LinkSession(
      webSocket,
      {
        linkId,
        nonce: hexOfBytes(chance.bytes(32, 'link challenge')),
        leaseKey: chance.bytes(32, 'lease key'),
        tokenKey: port.tokenKey,
        token,
        timing,
        clock,
        log: log.with({ remote: req.socket.remoteAddress ?? '' }),
        bytesRead: () => req.socket.bytesRead,
      },
      this,
    );
    this.#sessions.set(linkId, { session, gone });
  }

  admit(session: LinkSession, hello: Body<'hello'>): Failure | undefined {
    const ready = this.#parts.port.ready();
    if (!ready.yes) return new Failure('UNAVAILABLE', ready.no);
    const known = this.#byNode.get(hello.nodeId);
    if (known?.hello && known.hello.incarnation > hello.incarnation)
      return new Failure(
        'LINK_REPLACED',
        `a newer agent with the node id ${hello.nodeId} is linked; is the data folder a copy?`,
      );
    known?.end(new Failure('LINK_REPLACED', 'the same node came on a newer link'), true);
    this.#byNode.set(hello.nodeId, session);
    this.#challenging -= 1;
    return undefined;
  }

  welcomed(session: LinkSession): void {
    const signal = this.#sessions.get(session.linkId)?.gone.signal;
    const address = session.hello?.advertise;
    if (signal && address !== undefined) void this.#dial(session, address, signal);
  }

  apply(event: Parameters<LinkPort['apply']>[0]): void {
    this.#parts.port.apply(event);
  }

  log(body: Body<'log'>): void {
    this.#reads.get(body.readId)?.answer(body);
  }

  ended(session: LinkSession): void {
    const { linkId } = session;
    this.#sessions.get(linkId)?.gone.abort(new Failure('LINK_LOST', 'the link is gone'));
    this.#sessions.delete(linkId);
    let wasUp = false;
    for (const [nodeId, each] of this.#byNode)
      if (each === session) {
        this.#byNode.delete(nodeId);
        wasUp = true;
      }
    if (!wasUp) this.#challenging -= 1;
    for (const read of this.#reads.values())
      if (read.linkId === linkId) read.fail(new Failure('LINK_LOST', 'the agent is away'));
  }

  send(linkId: LinkId, message: Parameters<Links['send']>[1]): void {
    this.#sessions.get(linkId)?.session.send(message);
  }

  welcome(linkId: LinkId, body: Parameters<Links['welcome']>[1]): void {
    this.#sessions.get(linkId)?.session.welcome(body);
  }

  close(linkId: LinkId, failure: Failure): void {
    this.#sessions.get(linkId)?.session.end(failure);
  }

  closeAll(failure: Failure): void {
    for (const { session } of [...this.#sessions.values()]) session.end(failure);
  }

  leaseKeyOf(linkId: LinkId): Uint8Array | undefined {
    return this.#sessions.get(linkId)?.session.leaseKey;
  }

  linkOf(nodeId: NodeId): LinkId | undefined {
    return this.#byNode.get(nodeId)?.linkId;
  }

  readLog(
    linkId: LinkId,
    runnerId: Parameters<Links['readLog']>[1],
    offset: number,
    maxBytes: number,
    signal?: AbortSignal,
  ): Promise<LogPiece> {
    const session = this.#sessions.get(linkId)?.session;
    if (!session?.hello) return Promise.reject(new Failure('LINK_LOST', 'the agent is away'));
    if (signal?.aborted) return Promise.reject(signal.reason);
    this.#lastRead += 1;
    const readId = String(this.#lastRead);
    return new Promise((resolve, reject) => {
      const waitMs = this.#parts.readLogMs ?? READ_LOG_MS;
      const settle = (): void => {
        this.#reads.delete(readId);
        timer.cancel();
        signal?.removeEventListener('abort', onAbort);
      };
      const fail = (failure: unknown): void => {
        settle();
        reject(failure);
      };
      const onAbort = (): void => fail(signal?.reason);
      const timer = this.#parts.clock.after(waitMs, () =>
        fail(new Failure('LINK_LOST', `the agent did not answer within ${waitMs} ms`)),
      );
      signal?.addEventListener('abort', onAbort, { once: true });
      const answer = (body: Body<'log'>): void => {
        if (body.gone) return fail(new Failure('RUNNER_GONE', `no log of ${runnerId} any more`));
        settle();
        resolve({ offset: body.offset, bytes: body.bytes, end: body.end, ended: body.ended });
      };
      this.#reads.set(readId, { linkId, answer, fail });
      const most = Math.min(maxBytes, limits.logReadBytes);
      session.send({ name: 'readLog', body: { readId, runnerId, offset, maxBytes: most } });
    });
  }

  /** Until the agent answers or its link is gone; the core hears each change once. */
  async #dial(session: LinkSession, address: string, signal: AbortSignal): Promise<void> {
    const { clock, dialMs = DIAL_MS, redialMs = REDIAL_MS } = this.#parts;
    for (let said: string | undefined; !signal.aborted;) {
      const reason = await dialProblem(address, dialMs, clock, signal);
      const nodeId = session.hello?.nodeId;
      if (signal.aborted || nodeId === undefined) return;
      const about = { type: 'nodeDialled', linkId: session.linkId, nodeId } as const;
      if (reason === undefined) return this.apply({ ...about, reachable: true });
      if (reason !== said) this.apply({ ...about, reachable: false, reason });
      said = reason;
      await sleep(clock, redialMs, signal).catch(() => undefined);
    }
  }
}

function refuse(socket: Duplex, reason: string): void {
  socket.on('error', () => socket.destroy());
  const head = 'HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n';
  socket.end(`${head}content-length: ${Buffer.byteLength(reason)}\r\n\r\n${reason}`);
}
