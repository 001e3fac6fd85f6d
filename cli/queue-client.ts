// Calls to apps as functions: through the queue, and directly. What the app answers is an answer here, whatever its
// status; what the coordinator refuses before any app has seen it is a failure.
import { checked, type Http, type HttpResponse } from './http.ts';

export interface Submitted {
  request_id: string;
  status_url?: string;
  response_url?: string;
  cancel_url?: string;
  queue_position?: number;
}

export interface QueueClient {
  /** `path` is `owner/alias`, with a path of the app behind it. */
  submit(
    path: string,
    headers: Record<string, string>,
    body: string,
    signal?: AbortSignal,
  ): Promise<Submitted>;
  /** Asks; one that has ended already is no failure. */
  cancel(app: string, id: string): Promise<void>;
  result(app: string, id: string, signal?: AbortSignal): Promise<HttpResponse>;
  call(
    path: string,
    headers: Record<string, string>,
    body: string,
    signal?: AbortSignal,
  ): Promise<HttpResponse>;
}

const JSON_HEADERS = { 'content-type': 'application/json' };

/** Refusals have fal's error type and name no runner that served them. */
function isAnswer(status: number, headers: HttpResponse['headers']): boolean {
  const isRefusal = headers.has('x-fal-error-type') && !headers.has('x-fal-served-from');
  return !isRefusal || ![400, 401, 403, 404, 413, 429].includes(status);
}

export function openQueueClient(http: Http): QueueClient {
  return {
    async submit(path, headers, body, signal) {
      const exchange = { method: 'POST' as const, headers: { ...JSON_HEADERS, ...headers }, body };
      const answer = await http.json(`/queue/${path}`, exchange, signal);
      return checked(http, `/queue/${path}`, 'request_id', answer);
    },
    async cancel(app, id) {
      const response = await http.exchange(`/queue/${app}/requests/${id}/cancel`, {
        method: 'PUT',
        accept: (status) => status < 300 || status === 400,
      });
      await response.body?.cancel();
    },
    result: (app, id, signal) =>
      http.exchange(`/queue/${app}/requests/${id}`, { accept: isAnswer }, signal),
    call: (path, headers, body, signal) =>
      http.exchange(
        `/run/${path}`,
        {
          method: 'POST',
          headers: { ...JSON_HEADERS, ...headers },
          body,
          accept: isAnswer,
          patient: true,
        },
        signal,
      ),
  };
}
