// The coordinator's API as functions: one for each route that the command uses, with the shapes that the coordinator
// itself declares. A wrong shape is told at this edge and nowhere else.
import type { z } from 'zod';
import type { deployed, requestView } from '../coordinator/api/views.ts';
import type { AppView, NodeView, RunnerView } from '../coordinator/core/query.ts';
import type { RevisionRecord } from '../coordinator/store/records.ts';
import type { AppSpec } from '../shared/app-spec.ts';
import { hexOf, type Digest } from '../shared/digest.ts';
import { checked, record, wrongShape, type Http, type HttpResponse } from './http.ts';
import { openQueueClient, type QueueClient } from './queue-client.ts';

export type Deployed = z.output<typeof deployed>;
export type RevisionView = RevisionRecord;
export type RequestView = z.output<typeof requestView>;

export interface Client extends QueueClient {
  readonly http: Http;
  apps(): Promise<AppView[]>;
  app(name: string): Promise<AppView>;
  revisions(app: string): Promise<RevisionView[]>;
  deploy(spec: AppSpec): Promise<Deployed>;
  runner(id: string): Promise<RunnerView>;
  putBlob(digest: Digest, bytes: Blob): Promise<void>;
  runners(filter: { app?: string | undefined; all?: boolean | undefined }): Promise<RunnerView[]>;
  stopRunner(id: string, how: 'stop' | 'kill'): Promise<void>;
  log(
    id: string,
    from: { offset: number; follow: boolean },
    signal?: AbortSignal,
  ): Promise<HttpResponse>;
  nodes(): Promise<NodeView[]>;
  requests(filter: { app?: string | undefined; limit: number }): Promise<RequestView[]>;
  request(id: string, signal?: AbortSignal): Promise<RequestView>;
}

const JSON_HEADERS = { 'content-type': 'application/json' };

export function openClient(http: Http): Client {
  const one = async <T>(path: string, key: string, signal?: AbortSignal): Promise<T> =>
    checked(http, path, key, await http.json(path, {}, signal));
  const list = async <T>(path: string): Promise<T[]> => {
    const items = record(await http.json(path))?.['items'];
    if (!Array.isArray(items)) throw wrongShape(http, path, 'no items');
    return items as T[];
  };
  const post = (path: string, body: unknown): Promise<unknown> =>
    http.json(path, { method: 'POST', headers: JSON_HEADERS, body: JSON.stringify(body) });
  const appPath = (app: string): string =>
    `/v1/apps/${app.split('/').map(encodeURIComponent).join('/')}`;
  const runnerPath = (id: string): string => `/v1/runners/${encodeURIComponent(id)}`;
  return {
    http,
    ...openQueueClient(http),
    apps: () => list('/v1/apps'),
    app: (name) => one(appPath(name), 'app'),
    revisions: (app) => list(`${appPath(app)}/revisions`),
    deploy: async (spec) => checked(http, '/v1/apps', 'revision', await post('/v1/apps', spec)),
    runner: (id) => one(runnerPath(id), 'id'),
    async putBlob(digest, bytes) {
      const headers = { 'content-type': 'application/octet-stream' };
      const path = `/v1/blobs/${hexOf(digest)}`;
      const response = await http.exchange(path, { method: 'PUT', headers, body: bytes });
      await response.body?.cancel();
    },
    runners({ app, all }) {
      const query = new URLSearchParams();
      if (app !== undefined) query.set('app', app);
      if (all) query.set('all', '1');
      return list(`/v1/runners${query.size > 0 ? `?${query.toString()}` : ''}`);
    },
    stopRunner: async (id, how) => void (await post(`${runnerPath(id)}/stop`, { how })),
    log: (id, { offset, follow }, signal) =>
      http.exchange(
        `${runnerPath(id)}/logs?offset=${offset}${follow ? '&follow=1' : ''}`,
        { patient: true },
        signal,
      ),
    nodes: () => list('/v1/nodes'),
    requests({ app, limit }) {
      const query = new URLSearchParams({ limit: String(limit) });
      if (app !== undefined) query.set('app', app);
      return list(`/v1/requests?${query.toString()}`);
    },
    request: (id, signal) => one(`/v1/requests/${encodeURIComponent(id)}`, 'id', signal),
  };
}
