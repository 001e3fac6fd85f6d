// A coordinator of the agent's tests: a real HTTP and WebSocket server that speaks the protocol table, decides nothing,
// and does as the test says. What it hears can be waited for by name.
import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { WebSocketServer, type WebSocket } from 'ws';
import { decodeFrame, encodeFrame } from '../../shared/frame.ts';
import { checkMessage, type Body, type Message, type SentBy } from '../../shared/protocol.ts';
import { leaseToken, linkProof } from '../../shared/token.ts';
import type { RunnerId } from '../../shared/ids.ts';

export interface FakeOptions {
  token?: string;
  /** Proves a wrong knowledge of the token. */
  liesAboutToken?: boolean;
  protocol?: { min: number; max: number };
  heartbeatMs?: number;
  lostMs?: number;
  /** Acknowledges each `finished`; true by default. */
  acks?: boolean;
  /** Never answers for a payload. */
  hangsPayloads?: boolean;
  /** Sends heartbeats; true by default. */
  beats?: boolean;
  /** Named in each welcome. */
  revoke?: string[];
}

type Heard = Message<'agent'>;
type Named<N extends SentBy<'agent'>> = Extract<Heard, { name: N }>['body'];

export class FakeCoordinator {
  readonly options: FakeOptions;
  readonly leaseKey = randomBytes(32);
  readonly heard: Heard[] = [];
  /** By hex of the digest. */
  readonly payloads = new Map<string, Buffer>();
  /** By token. */
  readonly results = new Map<string, Buffer>();
  readonly hellos: Body<'hello'>[] = [];
  readonly authorizations: string[] = [];
  /** Answers of the result route before it begins to work, e.g. 503. */
  readonly resultRefusals: number[] = [];
  connections = 0;
  #socket: WebSocket | undefined;
  #waiting: { until: (message: Heard) => boolean; resolve: (message: Heard) => void }[] = [];
  #leases = 0;
  readonly #http = createServer((request, response) => void this.#serve(request, response));
  readonly #ws = new WebSocketServer({
    server: this.#http,
    path: '/agent',
    perMessageDeflate: false,
  });

  private constructor(options: FakeOptions) {
    this.options = options;
    this.#ws.on('connection', (socket) => this.#accept(socket));
  }

  static async start(options: FakeOptions = {}, port = 0): Promise<FakeCoordinator> {
    const fake = new FakeCoordinator(options);
    await new Promise<void>((done) => fake.#http.listen(port, '127.0.0.1', done));
    return fake;
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  send<N extends SentBy<'coordinator'>>(name: N, body: Body<N>): void {
    this.raw(encodeFrame(name, body));
  }

  raw(bytes: Uint8Array | string): void {
    this.#socket?.send(bytes);
  }

  /** Cuts the link as a broken network does. */
  drop(): void {
    this.#socket?.terminate();
  }

  lease(runnerId: RunnerId): string {
    return leaseToken(this.leaseKey, runnerId, `${++this.#leases}`);
  }

  payload(bytes: Buffer): Body<'assign'>['input'] {
    const hex = createHash('sha256').update(bytes).digest('hex');
    this.payloads.set(hex, bytes);
    return { kind: 'payload', digest: `sha256:${hex}`, sizeBytes: bytes.byteLength };
  }

  /** The next message of that name that fits and was not taken yet. */
  async next<N extends SentBy<'agent'>>(
    name: N,
    fits: (body: Named<N>) => boolean = () => true,
  ): Promise<Named<N>> {
    const until = (message: Heard): boolean =>
      message.name === name && fits(message.body as Named<N>);
    const at = this.heard.findIndex(until);
    const found =
      at >= 0
        ? this.heard.splice(at, 1)[0]
        : await new Promise<Heard>((resolve) => this.#waiting.push({ until, resolve }));
    return found?.body as Named<N>;
  }

  async stop(): Promise<void> {
    for (const client of this.#ws.clients) client.terminate();
    this.#http.closeAllConnections();
    await new Promise((done) => this.#http.close(done));
  }

  #accept(socket: WebSocket): void {
    this.#socket = socket;
    this.connections += 1;
    const nonce = randomBytes(16).toString('hex');
    const { token, protocol = { min: 1, max: 1 } } = this.options;
    socket.on('error', () => undefined);
    socket.on('message', (data: Buffer) => this.#hear(socket, nonce, data));
    const auth = token === undefined ? 'none' : 'token';
    socket.send(encodeFrame('challenge', { nonce, protocol, auth }));
  }

  #hear(socket: WebSocket, nonce: string, data: Buffer): void {
    const [name, body] = decodeFrame(data);
    const message = checkMessage('agent', name, body);
    if (!message) throw new Error(`the agent sent ${name}`);
    if (message.name === 'hello') return this.#welcome(socket, nonce, message.body);
    if (message.name === 'heartbeat') {
      if (this.options.beats === false) return;
      const { sequence } = message.body;
      return socket.send(encodeFrame('heartbeat', { sequence, echo: sequence }));
    }
    if (message.name === 'finished' && this.options.acks !== false)
      socket.send(encodeFrame('ack', { token: message.body.token }));
    const at = this.#waiting.findIndex(({ until }) => until(message));
    if (at >= 0) this.#waiting.splice(at, 1)[0]?.resolve(message);
    else this.heard.push(message);
  }

  #welcome(socket: WebSocket, nonce: string, hello: Body<'hello'>): void {
    const { token, heartbeatMs = 100, lostMs = 1_000, revoke = [] } = this.options;
    const nonces = { coordinatorNonce: nonce, agentNonce: hello.nonce, nodeId: hello.nodeId };
    if (token !== undefined && hello.proof !== linkProof(token, 'agent', nonces)) {
      socket.send(encodeFrame('goodbye', { code: 'UNAUTHORIZED', message: 'wrong token' }));
      return socket.close();
    }
    this.hellos.push(hello);
    const secret = this.options.liesAboutToken ? 'another secret' : token;
    socket.send(
      encodeFrame('welcome', {
        protocol: 1,
        ...(secret === undefined ? {} : { proof: linkProof(secret, 'coordinator', nonces) }),
        heartbeatMs,
        lostMs,
        leaseKey: new Uint8Array(this.leaseKey),
        revoke,
        stop: [],
      }),
    );
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, , kind, name = ''] = (request.url ?? '').split('/');
    this.authorizations.push(request.headers.authorization ?? '');
    if (kind === 'payloads') {
      if (this.options.hangsPayloads) return;
      const bytes = this.payloads.get(name);
      response.writeHead(bytes ? 200 : 404, bytes ? { 'content-length': bytes.byteLength } : {});
      return void response.end(bytes);
    }
    const refusal = this.resultRefusals.shift();
    const bytes = await buffer(request).catch(() => Buffer.alloc(0));
    if (refusal !== undefined) return void response.writeHead(refusal).end();
    this.results.set(decodeURIComponent(name), bytes);
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ digest, sizeBytes: bytes.byteLength }));
  }
}
