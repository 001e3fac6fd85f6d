// THE table of HTTP routes: method, path, what it is, what goes in and what comes out. /v1 is served from it, OpenAPI
// and the golden text test/golden/api.txt are derived from it; the queue, direct calls and the routes of agents, which
// are served by hand, are listed so that one table says all. To add a route to /v1: a row here, a handler of that name
// in platform-routes.ts.
import { z } from 'zod';
import { appSpec } from '../../shared/app-spec.ts';
import {
  appView,
  deployed,
  flag,
  limitParameter,
  listOf,
  nodeView,
  requestView,
  revisionView,
  runnerView,
} from './views.ts';

const text = z.string().max(1024);
const anyJson = z.unknown().describe('whatever the app takes or gives');
const requestUrls = {
  response_url: z.string(),
  status_url: z.string(),
  cancel_url: z.string(),
};
const appPath = z.object({ owner: text, alias: text });
const queuePath = appPath.extend({ id: text });
const statusView = z.object({
  status: z.enum(['IN_QUEUE', 'IN_PROGRESS', 'COMPLETED']),
  request_id: z.string(),
  ...requestUrls,
  queue_position: z.number().int().optional(),
  logs: z.array(z.unknown()).nullable().optional(),
  metrics: z.object({ inference_time: z.number().optional() }).optional(),
  error: z.string().optional(),
  error_type: z.string().optional(),
});

export interface Route {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'ANY';
  /** Parameters in braces; `{path}` at the end takes the rest. */
  path: string;
  summary: string;
  params?: z.ZodObject;
  query?: z.ZodObject;
  /** A JSON body; `bytes` streams. */
  body?: z.ZodType | 'bytes';
  /** The answer; `bytes` and `text` stream. */
  answer: z.ZodType | 'bytes' | 'text' | 'events';
  /** Status of a good answer, 200 when absent. */
  status?: number;
}

/** Rows of /v1, by the name of their handler. */
export const platformRoutes = {
  deploy: {
    method: 'POST',
    path: '/v1/apps',
    summary: 'Deploy an app: its file as JSON becomes the current revision',
    body: appSpec,
    answer: deployed,
    status: 201,
  },
  listApps: {
    method: 'GET',
    path: '/v1/apps',
    summary: 'List apps',
    answer: listOf(appView),
  },
  readApp: {
    method: 'GET',
    path: '/v1/apps/{owner}/{alias}',
    summary: 'Show an app',
    params: appPath,
    answer: appView,
  },
  listRevisions: {
    method: 'GET',
    path: '/v1/apps/{owner}/{alias}/revisions',
    summary: 'List revisions of an app, newest first',
    params: appPath,
    answer: listOf(revisionView),
  },
  listRunners: {
    method: 'GET',
    path: '/v1/runners',
    summary: 'List runners; with `all`, those that ended lately too',
    query: z.object({ app: text.optional(), all: flag }),
    answer: listOf(runnerView),
  },
  readRunner: {
    method: 'GET',
    path: '/v1/runners/{id}',
    summary: 'Show a runner',
    params: z.object({ id: text }),
    answer: runnerView,
  },
  stopRunner: {
    method: 'POST',
    path: '/v1/runners/{id}/stop',
    summary: 'Stop a runner: `stop` gives it its grace, `kill` does not',
    params: z.object({ id: text }),
    body: z.strictObject({ how: z.enum(['stop', 'kill']).default('stop') }),
    answer: z.object({ status: z.literal('stopping') }),
    status: 202,
  },
  readRunnerLogs: {
    method: 'GET',
    path: '/v1/runners/{id}/logs',
    summary: 'Output of a runner from a byte offset; with `follow`, until it ends',
    params: z.object({ id: text }),
    query: z.object({
      offset: z.coerce.number().int().min(0).default(0),
      follow: flag,
    }),
    answer: 'text',
  },
  listNodes: {
    method: 'GET',
    path: '/v1/nodes',
    summary: 'List nodes',
    answer: listOf(nodeView),
  },
  listRequests: {
    method: 'GET',
    path: '/v1/requests',
    summary: 'List queued requests, newest first',
    query: z.object({ app: text.optional(), limit: limitParameter }),
    answer: listOf(requestView),
  },
  readRequest: {
    method: 'GET',
    path: '/v1/requests/{id}',
    summary: 'Show a request: its state, why it waits, its attempts and timings',
    params: z.object({ id: text }),
    answer: requestView,
  },
  readInput: {
    method: 'GET',
    path: '/v1/requests/{id}/input',
    summary: 'The body that was submitted',
    params: z.object({ id: text }),
    answer: 'bytes',
  },
  readOutput: {
    method: 'GET',
    path: '/v1/requests/{id}/output',
    summary: 'The body of the result',
    params: z.object({ id: text }),
    answer: 'bytes',
  },
  putBlob: {
    method: 'PUT',
    path: '/v1/blobs/{sha256}',
    summary: 'Store a packed folder that a deploy will name as dir_digest',
    params: z.object({ sha256: text }),
    body: 'bytes',
    answer: z.object({ digest: z.string(), sizeBytes: z.number().int() }),
    status: 201,
  },
} as const satisfies Record<string, Route>;

export type PlatformRoute = keyof typeof platformRoutes;

/** Served by hand. */
export const otherRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/queue/{owner}/{alias}/{path}',
    summary: 'Submit a request',
    params: appPath,
    query: z.object({ fal_max_queue_length: z.coerce.number().int().optional() }),
    body: anyJson,
    answer: z.object({
      status: z.literal('IN_QUEUE'),
      request_id: z.string(),
      gateway_request_id: z.string(),
      ...requestUrls,
      queue_position: z.number().int(),
    }),
  },
  {
    method: 'GET',
    path: '/queue/{owner}/{alias}/requests/{id}/status',
    summary: 'Status of a request: 202 until it is COMPLETED, then 200',
    params: queuePath,
    query: z.object({ logs: text.optional() }),
    answer: statusView,
  },
  {
    method: 'GET',
    path: '/queue/{owner}/{alias}/requests/{id}/status/stream',
    summary: 'The status as server-sent events, until COMPLETED',
    params: queuePath,
    query: z.object({ logs: text.optional() }),
    answer: 'events',
  },
  {
    method: 'GET',
    path: '/queue/{owner}/{alias}/requests/{id}',
    summary: "The result: status, headers and body of the app's response; also at …/response",
    params: queuePath,
    answer: anyJson,
  },
  {
    method: 'PUT',
    path: '/queue/{owner}/{alias}/requests/{id}/cancel',
    summary: 'Cancel a request',
    params: queuePath,
    answer: z.object({ status: z.literal('CANCELLATION_REQUESTED') }),
    status: 202,
  },
  {
    method: 'ANY',
    path: '/run/{owner}/{alias}/{path}',
    summary: 'Call the app directly: method, path, query and body go to a runner as they are',
    params: appPath,
    body: anyJson,
    answer: anyJson,
  },
  {
    method: 'GET',
    path: '/agent/payloads/{hex}',
    summary: 'For agents: a payload, with a grant or the token of an attempt that needs it',
    params: z.object({ hex: text }),
    answer: 'bytes',
  },
  {
    method: 'PUT',
    path: '/agent/results/{token}',
    summary: 'For agents: the result body of an attempt',
    params: z.object({ token: text }),
    body: 'bytes',
    answer: z.object({ digest: z.string(), sizeBytes: z.number().int() }),
    status: 201,
  },
  {
    method: 'GET',
    path: '/healthz',
    summary: 'The process lives',
    answer: z.object({ status: z.literal('ok'), version: z.string(), epoch: z.number().int() }),
  },
  {
    method: 'GET',
    path: '/readyz',
    summary: 'Requests are accepted; 503 says why not',
    answer: z.object({ status: z.literal('ready') }),
  },
  { method: 'GET', path: '/metrics', summary: 'Metrics for Prometheus', answer: 'text' },
  { method: 'GET', path: '/openapi.json', summary: 'This table as OpenAPI 3.1', answer: anyJson },
  { method: 'GET', path: '/', summary: 'What this is', answer: 'text' },
];

export const allRoutes: readonly Route[] = [...Object.values(platformRoutes), ...otherRoutes];

/** One line a route: the contract that test/golden/api.txt holds. */
export function routeLines(): string {
  return allRoutes.map(({ method, path, summary }) => `${method} ${path} ${summary}\n`).join('');
}
