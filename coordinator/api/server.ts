// The coordinator's one HTTP port. Here it is decided which service a request is for (by path, or by the Host header for
// those who point fal's names at us), who may come in, and how the server starts and stops. What a service does is in
// its own file.
//
// H1  Every request is answered or broken off; nothing waits for ever on a silent peer: heads have a deadline, bodies a
//     least rate, and header and path sizes are bounded.
// H2  Places are checked before anything is routed (access.ts); callers before every service but health.
// H3  On close, what runs may finish until the grace ends; then it is broken off, never ended as if whole.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Registry } from 'prom-client';
import type { Chance } from '../../shared/chance.ts';
import { sleep, type Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { newRequestId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import type { TokenKey } from '../../shared/token.ts';
import type { PayloadStore } from '../payload/payload-store.ts';
import {
  FAL_HOSTS,
  checkCaller,
  checkPlace,
  corsHeaders,
  hostNameOf,
  preflightHeaders,
  type AccessRules,
} from './access.ts';
import { AgentRoutes } from './agent-routes.ts';
import type { ResolveImage } from './deploy.ts';
import { DirectCalls } from './direct-calls.ts';
import { failFal, failPlatform, headerOf, respond, type Exchange } from './exchange.ts';
import { HealthRoutes } from './health-routes.ts';
import { watchCounts, type Metrics } from './metrics.ts';
import { openPlatformServer, type PlatformServer } from './platform-server.ts';
import { platformHandlers } from './platform-routes.ts';
import type { CoordinatorPort } from './port.ts';
import { QueueRoutes } from './queue-routes.ts';

export interface ApiConfig extends AccessRules {
  /** Scheme, host and prefix that answers name, where a proxy in front makes them differ; no slash at the end. */
  publicUrl: string | undefined;
  /** Believe `x-forwarded-proto` and `x-forwarded-host`. */
  trustProxy: boolean;
}

/** Takes over a socket that asks to become an agent link; coordinator/link offers it. */
export interface LinkUpgrade {
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void;
}

export interface ApiParts {
  port: CoordinatorPort;
  payloads: PayloadStore;
  link: LinkUpgrade;
  tokenKey: TokenKey;
  config: ApiConfig;
  clock: Clock;
  chance: Chance;
  log: Log;
  registry: Registry;
  metrics: Metrics;
  resolveImage: ResolveImage;
  version: string;
}

export interface Api {
  /** Resolves with the address that was bound (port 0 picks one). @throws Failure CONFIG_INVALID when it is taken */
  listen(host: string, port: number): Promise<AddressInfo>;
  /** Stops accepting, lets what runs finish for `graceMs`, then breaks off the rest. */
  close(graceMs: number): Promise<void>;
}

export async function openApi(parts: ApiParts): Promise<Api> {
  const { port, payloads, clock, log, registry } = parts;
  const platform = await openPlatformServer(platformHandlers(parts), clock, log);
  const services: Services = {
    queue: new QueueRoutes({ ...parts, baseOf: (x) => queueBase(parts.config, x) }),
    direct: new DirectCalls(parts),
    agent: new AgentRoutes({ port, payloads, clock, tokenKey: parts.tokenKey }),
    health: new HealthRoutes({ ...parts, refreshCounts: watchCounts(registry, port) }),
    platform,
  };
  return new ApiServer(parts, services);
}

interface Services {
  queue: QueueRoutes;
  direct: DirectCalls;
  agent: AgentRoutes;
  health: HealthRoutes;
  platform: PlatformServer;
}

class ApiServer implements Api {
  readonly #parts: ApiParts;
  readonly #services: Services;
  readonly #server: Server;
  /** Connections of callers; a socket that became an agent link is not ours any more. */
  readonly #sockets = new Set<Duplex>();
  #closing = false;
  #onSocketEnd = (): void => undefined;

  constructor(parts: ApiParts, services: Services) {
    this.#parts = parts;
    this.#services = services;
    this.#server = createServer(
      {
        maxHeaderSize: limits.headerBytes,
        headersTimeout: limits.headersWithinMs,
        // A call may last for hours; slow bodies are cut off by their rate instead.
        requestTimeout: 0,
        connectionsCheckingInterval: 2_000,
        keepAliveTimeout: 65_000,
        insecureHTTPParser: false,
      },
      (req, res) => this.#onRequest(req, res),
    );
    // Node would drop headers above its count without a word; they are counted in #onRequest.
    this.#server.maxHeadersCount = 0;
    this.#server.on('upgrade', (req, socket, head) => this.#onUpgrade(req, socket, head));
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        this.#onSocketEnd();
      });
    });
  }

  listen(host: string, port: number): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      const onError = (cause: Error): void =>
        reject(new Failure('CONFIG_INVALID', `cannot listen on ${host}:${port}`, { cause }));
      this.#server.once('error', onError);
      this.#server.listen(port, host, () => {
        this.#server.off('error', onError);
        const address = this.#server.address();
        if (address === null || typeof address === 'string')
          return reject(new Failure('INTERNAL', 'the server listens on no port'));
        resolve(address);
      });
    });
  }

  async close(graceMs: number): Promise<void> {
    const { clock } = this.#parts;
    this.#closing = true;
    // It stops accepting at once; its callback would also wait for agent links, which are closed later.
    this.#server.close();
    const until = clock.elapsed() + graceMs;
    while (this.#sockets.size > 0 && clock.elapsed() < until) {
      this.#server.closeIdleConnections();
      // Timers do not keep the process alive, sockets do: the end of the last one must wake us by itself, or the
      // process would end here with the store still open.
      await Promise.race([this.#nextSocketEnd(), sleep(clock, 50)]);
    }
    for (const socket of this.#sockets) socket.destroy();
    await this.#services.direct.close();
    await this.#services.platform.close();
  }

  #nextSocketEnd(): Promise<void> {
    return new Promise((resolve) => {
      this.#onSocketEnd = resolve;
    });
  }

  #onRequest(req: IncomingMessage, res: ServerResponse): void {
    const { config, clock, chance } = this.#parts;
    if (this.#closing) res.shouldKeepAlive = false;
    const found = serviceOf(req);
    const cors = corsHeaders(config, req);
    const x: Exchange = { req, res, target: found.target, prefix: found.prefix, cors };
    try {
      if (req.rawHeaders.length > 2 * limits.headersPerMessage)
        throw new Failure('INPUT_TOO_LARGE', `at most ${limits.headersPerMessage} headers`);
      if ((req.url?.length ?? 0) > limits.pathBytes)
        throw new Failure('INPUT_TOO_LARGE', `path and query may have ${limits.pathBytes} bytes`);
      checkPlace(config, req);
      const preflight = preflightHeaders(req);
      if (preflight) return respond(x, 204, preflight, '');
      this.#route(x, found.service);
    } catch (thrown) {
      if (found.service === 'run' || found.service === 'queue')
        failFal(x, newRequestId(clock.now(), 0, chance), thrown);
      else failPlatform(x, thrown);
    }
  }

  #route(x: Exchange, service: ServiceName): void {
    const { queue, direct, agent, health, platform } = this.#services;
    const { config } = this.#parts;
    if (service === 'agent') return void agent.handle(x);
    if (service === 'open') return void health.handle(x, x.target.split('?', 1)[0] ?? '/');
    checkCaller(config, x.req);
    switch (service) {
      case 'run':
        return void direct.handle(x);
      case 'queue':
        return void queue.handle(x);
      case 'v1':
        return platform.handle(x);
      case 'guarded':
        return void health.handle(x, x.target.split('?', 1)[0] ?? '/');
      case 'later':
        throw new Failure('NOT_SUPPORTED', 'this service is not in this version');
    }
  }

  #onUpgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    const path = req.url?.split('?', 1)[0];
    this.#sockets.delete(socket);
    try {
      checkPlace(this.#parts.config, req);
      if (path === '/agent') return this.#parts.link.upgrade(req, socket, head);
      throw new Failure('NOT_SUPPORTED', 'WebSockets to apps are not in this version');
    } catch (thrown) {
      const status = thrown instanceof Failure ? thrown.status : 500;
      const reason = thrown instanceof Failure ? thrown.message : 'internal error';
      socket.on('error', () => socket.destroy());
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(reason)}\r\n\r\n${reason}`,
      );
    }
  }
}

/** `open` needs no credentials, `guarded` does; `later` is reserved for what comes. */
type ServiceName = 'run' | 'queue' | 'agent' | 'v1' | 'open' | 'guarded' | 'later';

interface Found {
  service: ServiceName;
  target: string;
  prefix: string;
}

const BY_PREFIX: Readonly<Record<string, ServiceName>> = {
  '/run': 'run',
  '/queue': 'queue',
  '/agent': 'agent',
  '/ws': 'later',
  '/rest': 'later',
  '/fal-proxy': 'later',
};

/** The service of a request, and what it is asked for there. */
function serviceOf(req: IncomingMessage): Found {
  // An absolute target (RFC 9112 §3.2.2) is as good as its path.
  const url = (req.url ?? '/').replace(/^https?:\/\/[^/?]*(?=[/?]|$)/i, '') || '/';
  const path = url.startsWith('/') ? url : `/${url}`;
  const host = hostNameOf(headerOf(req, 'host') ?? '');
  const named = Object.hasOwn(FAL_HOSTS, host) ? FAL_HOSTS[host] : undefined;
  const byHost = named === undefined ? undefined : BY_PREFIX[named];
  if (byHost) return { service: byHost, target: path, prefix: '' };
  const end = path.slice(1).search(/[/?]/);
  const prefix = end < 0 ? path : path.slice(0, end + 1);
  const service = Object.hasOwn(BY_PREFIX, prefix) ? BY_PREFIX[prefix] : undefined;
  if (service) {
    const rest = path.slice(prefix.length);
    return { service, target: rest.startsWith('/') ? rest : `/${rest}`, prefix };
  }
  if (prefix === '/v1') return { service: 'v1', target: path, prefix: '' };
  const open = prefix !== '/metrics' && prefix !== '/openapi.json';
  return { service: open ? 'open' : 'guarded', target: path, prefix: '' };
}

/** Answers repeat how the caller came to us, or name the public URL. */
function queueBase(config: ApiConfig, x: Exchange): string {
  if (config.publicUrl !== undefined) return `${config.publicUrl}/queue`;
  const { req } = x;
  const first = (name: string): string | undefined =>
    config.trustProxy ? headerOf(req, name)?.split(',', 1)[0]?.trim() : undefined;
  const scheme = first('x-forwarded-proto') === 'https' ? 'https' : 'http';
  const { localAddress, localPort } = req.socket;
  const host =
    first('x-forwarded-host') ?? headerOf(req, 'host') ?? `${localAddress ?? ''}:${localPort ?? 0}`;
  return `${scheme}://${host}${x.prefix}`;
}
