// The HTTP of the agent, on plain node:http because direct calls pass through it.
//
//   GET /healthz        alive, and whether a coordinator is linked
//   GET /metrics        Prometheus
//   GET /cache/stats    the node cache: where bytes came from
//   ANY /runners/{id}/http/*   direct calls, with a lease (direct-call.ts)
//   GET /blobs/sha256:<hex>    a piece of a blob, for peers with a ticket (blob-uploads.ts)
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Failure, systemCode } from '../../shared/failure.ts';
import { isShortId, type RunnerId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import { formatHostPort, type HostPort } from '../../shared/host-port.ts';
import type { BlobUploads } from './blob-uploads.ts';
import { answer, directCall, type DirectParts } from './direct-call.ts';

export interface AgentHttpParts {
  listen: HostPort;
  log: Log;
  direct: DirectParts;
  uploads: BlobUploads;
  healthz(): Record<string, unknown>;
  metrics(): Promise<string>;
  cacheStats(): Promise<Record<string, unknown>>;
}

export interface AgentHttp {
  /** Where it listens; the port is the real one. */
  readonly address: HostPort;
  /** Stops listening; with `force` the calls that run are broken off. */
  close(force: boolean): Promise<void>;
}

const RUNNERS = '/runners/';
const BLOBS = '/blobs/';
const HTTP = '/http';

/** @throws Failure UNAVAILABLE when the address cannot be had */
export async function serveAgentHttp(parts: AgentHttpParts): Promise<AgentHttp> {
  const server = createServer({
    maxHeaderSize: limits.headerBytes,
    // A direct call may stream for hours; what bounds it is its own timeout.
    requestTimeout: 0,
    keepAliveTimeout: 75_000,
    noDelay: true,
  });
  server.on('request', (request, response) => route(parts, request, response));
  server.on('upgrade', (_request, socket) => {
    socket.on('error', () => undefined);
    socket.end(
      'HTTP/1.1 501 Not Implemented\r\nx-runmesh-refused: NOT_SUPPORTED\r\nconnection: close\r\n\r\n',
    );
  });
  const address = await listening(server, parts.listen);
  return {
    address,
    close: (force) =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
        if (force) server.closeAllConnections();
      }),
  };
}

function listening(server: Server, { host, port }: HostPort): Promise<HostPort> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const where = formatHostPort({ host, port });
      const why = systemCode(cause) === 'EADDRINUSE' ? 'is in use' : 'cannot be listened on';
      reject(
        new Failure('UNAVAILABLE', `${where} ${why}; choose another with --listen`, { cause }),
      );
    });
    server.listen(port, host, () => {
      const bound: string | AddressInfo | null = server.address();
      resolve({ host, port: typeof bound === 'object' && bound ? bound.port : port });
    });
  });
}

function route(parts: AgentHttpParts, request: IncomingMessage, response: ServerResponse): void {
  response.on('error', () => undefined);
  request.on('error', () => undefined);
  const url = request.url ?? '/';
  if (url.startsWith(RUNNERS)) {
    const end = url.indexOf(HTTP, RUNNERS.length);
    const runnerId = url.slice(RUNNERS.length, end < 0 ? undefined : end);
    const rest = end < 0 ? '' : url.slice(end + HTTP.length);
    if (end >= 0 && isShortId(runnerId) && (rest === '' || rest[0] === '/' || rest[0] === '?')) {
      const path = rest[0] === '/' ? rest : `/${rest}`;
      return directCall(parts.direct, runnerId as RunnerId, path, request, response);
    }
  }
  if (url.startsWith(BLOBS)) return parts.uploads.serve(url.slice(BLOBS.length), request, response);
  const path = url.split('?')[0];
  if (path !== '/healthz' && path !== '/metrics' && path !== '/cache/stats')
    return answer(response, 404, 'x-runmesh-refused', 'NOT_FOUND', 'there is no such path');
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return answer(response, 405, 'x-runmesh-refused', 'NOT_SUPPORTED', 'only GET is served here');
  void page(parts, path).then(
    ({ type, body }) => {
      response.writeHead(200, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
      response.end(request.method === 'HEAD' ? undefined : body);
    },
    (thrown: unknown) => {
      parts.log.error('a page of the agent failed', { path, reason: String(thrown) });
      answer(response, 500, 'x-runmesh-failure', 'INTERNAL', 'a defect of ours');
    },
  );
}

async function page(
  parts: AgentHttpParts,
  path: '/healthz' | '/metrics' | '/cache/stats',
): Promise<{ type: string; body: string }> {
  const json = (value: unknown): { type: string; body: string } => ({
    type: 'application/json',
    body: `${JSON.stringify(value)}\n`,
  });
  switch (path) {
    case '/healthz':
      return json(parts.healthz());
    case '/metrics':
      return { type: 'text/plain; version=0.0.4', body: await parts.metrics() };
    case '/cache/stats':
      return json(await parts.cacheStats());
  }
}
