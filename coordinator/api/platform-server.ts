// Serves /v1 through fastify: routing from the table, checks by its schemas, every failure in one shape. Bodies are
// read by our own code, with our limits; fastify's parsers are off (an empty JSON body is fine here).
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { z } from 'zod';
import { fieldOf } from '../../shared/app-file.ts';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import { failPlatform, pour, respond, type Exchange } from './exchange.ts';
import type { Answer, Call, Handlers } from './platform-routes.ts';
import { readSmallBody, streamBody, checkDeclared } from './request-body.ts';
import { platformRoutes, type PlatformRoute, type Route } from './routes.ts';

export interface PlatformServer {
  handle(x: Exchange): void;
  close(): Promise<void>;
}

/** The exchange travels with the raw request: fastify knows nothing of it. */
const exchanges = new WeakMap<IncomingMessage, Exchange>();

export async function openPlatformServer(
  handlers: Handlers,
  clock: Clock,
  log: Log,
): Promise<PlatformServer> {
  let route: ((req: IncomingMessage, res: ServerResponse) => void) | undefined;
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 1024 },
    // The one listening server is ours (server.ts); this one never listens.
    serverFactory: (listener) => {
      route = listener;
      return createServer();
    },
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));
  app.setNotFoundHandler((request, reply) => {
    const x = take(request, reply);
    failPlatform(
      x,
      new Failure('NOT_FOUND', `no route ${request.method} ${request.url.slice(0, 200)}`),
    );
  });
  app.setErrorHandler((error, request, reply) => {
    failPlatform(take(request, reply), refusalOf(error));
  });
  for (const name of Object.keys(platformRoutes) as PlatformRoute[])
    addRoute(app, name, handlers, clock, log);
  await app.ready();
  return {
    handle(x) {
      exchanges.set(x.req, x);
      route?.(x.req, x.res);
    },
    close: () => app.close(),
  };
}

function addRoute(
  app: FastifyInstance,
  name: PlatformRoute,
  handlers: Handlers,
  clock: Clock,
  log: Log,
): void {
  const row: Route = platformRoutes[name];
  // Which row and which handler belong together is the table's promise; the types are lost in the loop.
  const handler = handlers[name] as (call: Call<PlatformRoute>) => Promise<Answer>;
  app.route({
    method: row.method === 'ANY' ? ['GET', 'POST'] : row.method,
    url: row.path.replace(/\{(\w+)\}/g, ':$1'),
    handler: async (request, reply) => {
      const x = take(request, reply);
      try {
        const call = await callOf(row, request, x, clock);
        await answer(x, row, await handler(call));
      } catch (thrown) {
        const failure = failPlatform(x, thrown);
        if (failure.code === 'INTERNAL')
          log.error('a route failed', { route: name, cause: failure });
      }
    },
  });
}

function take(request: FastifyRequest, reply: FastifyReply): Exchange {
  reply.hijack();
  return (
    exchanges.get(request.raw) ??
    ({ req: request.raw, res: reply.raw, target: request.url, prefix: '', cors: [] } as const)
  );
}

async function callOf(
  row: Route,
  request: FastifyRequest,
  x: Exchange,
  clock: Clock,
): Promise<Call<PlatformRoute>> {
  const controller = new AbortController();
  x.res.on('close', () => controller.abort(new Failure('CLIENT_DISCONNECTED', 'the caller left')));
  const call = {
    params: row.params ? checked(row.params, request.params, '') : undefined,
    query: row.query ? checked(row.query, request.query, '') : undefined,
    body: await bodyOf(row, x, clock),
    signal: controller.signal,
  };
  // Checked by the schemas of the same row that `Call` is typed by.
  return call as Call<PlatformRoute>;
}

async function bodyOf(row: Route, x: Exchange, clock: Clock): Promise<unknown> {
  if (row.body === undefined) return undefined;
  if (row.body === 'bytes') {
    checkDeclared(x.req, limits.appDirBytes);
    return streamBody(x.req, clock);
  }
  const bytes = await readSmallBody(x.req, limits.appFileBytes, clock);
  let value: unknown = {};
  try {
    if (bytes.byteLength > 0) value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (cause) {
    throw new Failure('INPUT_INVALID', 'body: is not JSON', { cause, detail: { field: 'body' } });
  }
  return checked(row.body, value, 'body');
}

/** @throws Failure INPUT_INVALID that names every field, the first of them as `field` */
function checked(schema: z.ZodType, value: unknown, whole: string): unknown {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.flatMap((issue) => {
    const keys = issue.code === 'unrecognized_keys' ? issue.keys : [undefined];
    return keys.map((key) => {
      const path = key === undefined ? issue.path : [...issue.path, key];
      const field = path.length === 0 ? whole : fieldOf(path);
      return { field, problem: key === undefined ? issue.message : 'is not a field here' };
    });
  });
  const shown = problems.slice(0, 20).map(({ field, problem }) => `${field}: ${problem}`);
  throw new Failure('INPUT_INVALID', shown.join('\n'), {
    detail: { field: problems[0]?.field ?? whole },
  });
}

async function answer(x: Exchange, row: Route, given: Answer): Promise<void> {
  const status = row.status ?? 200;
  if ('json' in given)
    return respond(x, status, ['content-type', 'application/json'], JSON.stringify(given.json));
  const type = ['content-type', given.contentType, 'x-content-type-options', 'nosniff'];
  const size = given.sizeBytes === undefined ? [] : ['content-length', String(given.sizeBytes)];
  const first = await firstOf(given.stream);
  x.res.writeHead(status, [...type, ...size, ...x.cors]);
  await pour(x, first);
}

/** Waits for the first chunk, so that a stream which fails at once still becomes a proper error. */
async function firstOf(stream: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const iterator = stream[Symbol.asyncIterator]();
  const head = await iterator.next();
  return (async function* rest() {
    if (head.done) return;
    yield head.value;
    yield* { [Symbol.asyncIterator]: () => iterator };
  })();
}

function refusalOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  const status =
    typeof error === 'object' && error !== null && 'statusCode' in error ? error.statusCode : 500;
  const message = error instanceof Error ? error.message : String(error);
  return new Failure(
    typeof status === 'number' && status < 500 ? 'INPUT_INVALID' : 'INTERNAL',
    message,
    {
      cause: error,
    },
  );
}
