// The headers and query fields by which a caller steers a request, as fal names them (fal-contract §2.2, §2.3). All
// are checked here and nowhere else; what is wrong is refused by name before anything is stored.
import type { IncomingMessage } from 'node:http';
import { Failure } from '../../shared/failure.ts';
import type { Priority } from '../store/keys.ts';
import { headerOf } from './exchange.ts';

export interface Steering {
  priority: Priority;
  noRetry: boolean;
  startTimeoutMs?: number;
  maxQueueLength?: number;
}

const LEAST_START_TIMEOUT_SECONDS = 0.1;
const MOST_SECONDS = 365 * 86_400;

/** @throws Failure INPUT_INVALID naming the header */
export function startTimeoutMs(req: IncomingMessage): number | undefined {
  for (const name of ['x-fal-request-start-timeout', 'x-fal-request-timeout']) {
    const text = headerOf(req, name);
    if (text === undefined) continue;
    const seconds = /^\s*\d+(?:\.\d+)?\s*$/.test(text) ? Number(text) : Number.NaN;
    if (!(seconds > LEAST_START_TIMEOUT_SECONDS && seconds <= MOST_SECONDS))
      throw invalid(name, `expected seconds above ${LEAST_START_TIMEOUT_SECONDS}`);
    return seconds * 1000;
  }
  return undefined;
}

/** @throws Failure INPUT_INVALID naming the header or the query field */
export function steeringOf(req: IncomingMessage, query: string): Steering {
  const fields = new URLSearchParams(query);
  if (fields.has('fal_webhook'))
    throw invalid('fal_webhook', 'webhooks are not in this version; poll or stream the status');
  const steering: Steering = {
    priority: priorityOf(headerOf(req, 'x-fal-queue-priority')),
    noRetry: /^(?:1|true|yes)$/i.test(headerOf(req, 'x-fal-no-retry')?.trim() ?? ''),
  };
  const timeout = startTimeoutMs(req);
  if (timeout !== undefined) steering.startTimeoutMs = timeout;
  const most = fields.get('fal_max_queue_length');
  if (most !== null) {
    if (!/^\d{1,9}$/.test(most)) throw invalid('fal_max_queue_length', 'expected a whole number');
    steering.maxQueueLength = Number(most);
  }
  return steering;
}

/** The query as the app shall see it: without the fields that are the platform's. */
export function queryForApp(query: string): string {
  if (!query.includes('fal_')) return query;
  const kept = query
    .slice(1)
    .split('&')
    .filter((field) => !/^fal_(?:webhook|max_queue_length)(?:=|$)/.test(field));
  return kept.length === 0 ? '' : `?${kept.join('&')}`;
}

/** `logs=1`, `logs=true`: both are in use. */
export function wantsLogs(query: string): boolean {
  return /^(?:1|true)$/i.test(new URLSearchParams(query).get('logs') ?? '');
}

function priorityOf(text: string | undefined): Priority {
  const word = text?.trim().toLowerCase() ?? 'normal';
  if (word !== 'normal' && word !== 'low')
    throw invalid('x-fal-queue-priority', 'expected normal or low');
  return word === 'low' ? 1 : 0;
}

function invalid(field: string, problem: string): Failure {
  return new Failure('INPUT_INVALID', `${field}: ${problem}`, { detail: { field } });
}
