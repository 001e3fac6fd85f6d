// Handlers of /v1, one for each row of the table (routes.ts). A handler gets what its row declares, already checked,
// and gives a value or a stream.
import type { z } from 'zod';
import type { Clock } from '../../shared/clock.ts';
import { isDigest, parseDigest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { isRequestId, isShortId, type RequestId, type RunnerId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { PayloadStore } from '../payload/payload-store.ts';
import type { RunnerView } from '../core/query.ts';
import type { RequestRecord } from '../store/records.ts';
import { deploy, type ResolveImage } from './deploy.ts';
import type { CoordinatorPort } from './port.ts';
import { viewOfRequest } from './request-view.ts';
import { platformRoutes, type PlatformRoute } from './routes.ts';
import { runnerLog } from './runner-log-stream.ts';

export interface PlatformParts {
  port: CoordinatorPort;
  payloads: PayloadStore;
  clock: Clock;
  resolveImage: ResolveImage;
}

type Rows = typeof platformRoutes;
type Part<R, K extends string> = R extends { [P in K]: infer S extends z.ZodType }
  ? z.output<S>
  : undefined;

/** What a handler is given: only what its row declares is there. */
export interface Call<N extends PlatformRoute> {
  params: Part<Rows[N], 'params'>;
  query: Part<Rows[N], 'query'>;
  body: Rows[N] extends { body: 'bytes' } ? AsyncIterable<Uint8Array> : Part<Rows[N], 'body'>;
  /** Aborts when the caller goes away. */
  signal: AbortSignal;
}

/** A stream with its type, or a value that becomes JSON. */
export type Answer =
  | { json: unknown }
  | { stream: AsyncIterable<Uint8Array>; contentType: string; sizeBytes?: number };

export type Handlers = { [N in PlatformRoute]: (call: Call<N>) => Promise<Answer> };

const TEXT = 'text/plain; charset=utf-8';
const BYTES = 'application/octet-stream';

export function platformHandlers(parts: PlatformParts): Handlers {
  const { port, payloads, clock } = parts;
  const request = (id: string) => requestOf(port, id);
  const runner = (id: string) => runnerOf(port, id);
  const knownApp = async (call: { params: { owner: string; alias: string } }) => {
    const app = `${call.params.owner}/${call.params.alias}`;
    return (await port.query('app', { app })) ?? notFound('app', `no app ${app}`);
  };
  return {
    deploy: async ({ body, signal }) => ({ json: await deploy(parts, body, signal) }),
    listApps: async () => ({ json: { items: await port.query('apps', {}) } }),
    readApp: async (call) => ({ json: await knownApp(call) }),
    listRevisions: async (call) => ({
      json: { items: await port.listRevisions((await knownApp(call)).app) },
    }),
    listRunners: async ({ query }) => ({
      json: {
        items: await port.query('runners', {
          ...(query.app === undefined ? {} : { app: query.app }),
          ended: query.all,
        }),
      },
    }),
    readRunner: async ({ params }) => ({ json: await runner(params.id) }),
    stopRunner: async ({ params, body }) => {
      const runnerId = runnerIdOf(params.id);
      const answer = await port.ask('stopRunner', { runnerId, how: body.how });
      return answer === 'stopping'
        ? { json: { status: answer } }
        : notFound('id', `no live runner ${runnerId}`);
    },
    readRunnerLogs: async ({ params, query, signal }) => {
      const { id } = await runner(params.id);
      return { stream: runnerLog(port, clock, id, query, signal), contentType: TEXT };
    },
    listNodes: async () => ({ json: { items: await port.query('nodes', {}) } }),
    listRequests: async ({ query }) => {
      const records = await port.listRequests({
        ...(query.app === undefined ? {} : { app: query.app }),
        limit: query.limit,
      });
      const items = records.map((record) => viewOfRequest(port, record, false));
      return { json: { items: await Promise.all(items) } };
    },
    readRequest: async ({ params }) => ({
      json: await viewOfRequest(port, await request(params.id), true),
    }),
    readInput: async ({ params }) => {
      const record = await request(params.id);
      const stream = await port.openInput(record);
      return { stream, contentType: BYTES, sizeBytes: record.input.sizeBytes };
    },
    readOutput: async ({ params }) => {
      const { id, state } = await request(params.id);
      if (state.kind !== 'done') throw new Failure('CONFLICT', `request ${id} has no result yet`);
      const stream = await port.openOutput(id as RequestId, state.end);
      return { stream, contentType: BYTES, sizeBytes: state.end.body.sizeBytes };
    },
    putBlob: async ({ params, body }) => {
      const name = params.sha256;
      const expect = parseDigest(isDigest(name) ? name : `sha256:${name}`, 'sha256');
      const stored = await payloads.write(body, { maxBytes: limits.appDirBytes, expect });
      return { json: stored };
    },
  };
}

async function requestOf(port: CoordinatorPort, id: string): Promise<RequestRecord> {
  const record = isRequestId(id) ? await port.readRequest(id) : undefined;
  return record ?? notFound('id', `no request ${id}`);
}

async function runnerOf(port: CoordinatorPort, text: string): Promise<RunnerView> {
  const id = runnerIdOf(text);
  const runners = await port.query('runners', { ended: true });
  return runners.find((each) => each.id === id) ?? notFound('id', `no runner ${id}`);
}

function runnerIdOf(text: string): RunnerId {
  return isShortId(text) ? (text as RunnerId) : notFound('id', `no runner ${text}`);
}

function notFound(field: string, message: string): never {
  throw new Failure('NOT_FOUND', message, { detail: { field } });
}
