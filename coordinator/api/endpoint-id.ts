// Reads the paths of the queue and of direct calls: `/{owner}/{alias}[/{path}]`, and for a request of the queue
// `/{owner}/{alias}[/{path}]/requests/{id}[/status[/stream] | /cancel | /response]`. The one place that knows this
// grammar; namespaces of three parts (workflows/…, comfy/…) would be added here.
//
// The path that an app sees is cut from the text as it came: nothing is decoded, joined or made tidy on the way.
import { APP_NAME } from '../../shared/app-spec.ts';
import { isRequestId, type RequestId } from '../../shared/ids.ts';

export interface Endpoint {
  /** `owner/alias`. */
  app: string;
  /** Path at the app, begins with `/`. */
  path: string;
  /** Query with its `?`, or empty. */
  query: string;
}

export type RequestVerb = 'status' | 'stream' | 'result' | 'cancel';

export type QueueTarget =
  | { kind: 'submit'; endpoint: Endpoint }
  | { kind: 'request'; endpoint: Endpoint; id: RequestId; verb: RequestVerb }
  /** Below `/requests/`, but no request of ours. */
  | { kind: 'noSuchRequest'; endpoint: Endpoint };

/** Numbered owners of old ids: `12345-some-app` is `12345/some-app`. */
const LEGACY = /^([0-9]+)-([a-z0-9-]+)$/;

/** `target` begins with `/`, without the prefix of the service; undefined when it names no app. */
export function parseEndpoint(target: string): Endpoint | undefined {
  const mark = target.indexOf('?');
  const full = mark < 0 ? target : target.slice(0, mark);
  const query = mark < 0 ? '' : target.slice(mark);
  const ownerEnd = full.indexOf('/', 1);
  const owner = full.slice(1, ownerEnd < 0 ? undefined : ownerEnd);
  const legacy = LEGACY.exec(owner);
  if (legacy) {
    const path = ownerEnd < 0 ? '/' : full.slice(ownerEnd);
    return { app: `${legacy[1] ?? ''}/${legacy[2] ?? ''}`, path, query };
  }
  if (ownerEnd < 0) return undefined;
  const aliasEnd = full.indexOf('/', ownerEnd + 1);
  const app = full.slice(1, aliasEnd < 0 ? undefined : aliasEnd);
  if (!APP_NAME.test(app)) return undefined;
  return { app, path: aliasEnd < 0 ? '/' : full.slice(aliasEnd), query };
}

const REQUEST_PATH =
  /^(?:\/.*)?\/requests\/([^/]+)(?:\/(status|status\/stream|cancel|response))?\/?$/;

const VERBS: Record<string, RequestVerb> = {
  status: 'status',
  'status/stream': 'stream',
  cancel: 'cancel',
  response: 'result',
};

/** The word `requests` directly behind the app is reserved; deeper it counts only for what is not a POST. */
export function parseQueueTarget(method: string, endpoint: Endpoint): QueueTarget {
  const reserved = endpoint.path === '/requests' || endpoint.path.startsWith('/requests/');
  if (method === 'POST' && !reserved) return { kind: 'submit', endpoint };
  const match = REQUEST_PATH.exec(endpoint.path);
  const id = match?.[1];
  if (id !== undefined && isRequestId(id))
    return { kind: 'request', endpoint, id, verb: VERBS[match?.[2] ?? 'response'] ?? 'result' };
  return reserved || match ? { kind: 'noSuchRequest', endpoint } : { kind: 'submit', endpoint };
}
