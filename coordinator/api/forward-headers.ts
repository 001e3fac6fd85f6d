// Which headers travel from a caller to an app and back. A message is read as the flat list that Node keeps
// (`rawHeaders`), so that repeated headers stay repeated and a header called `__proto__` is just a header.
import type { Headers } from '../../shared/protocol.ts';

/** Of one hop only (RFC 9110 §7.6.1), or set anew for each hop. */
const HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
]);

/** Never shown to an app: the platform's credentials, and what we say anew. */
const NOT_FOR_APPS = new Set(['host', 'content-length', 'authorization']);

/** A caller may not set `x-fal-*`, save what fal hands on to the app. */
const HANDED_ON = 'x-fal-object-lifecycle-preference';

/** Ours and fal's between gateway and app; no caller sees them. */
const NOT_FOR_CALLERS = new Set(['x-fal-stop-runner', 'x-fal-request-id', 'x-fal-served-from']);

function named(list: string | undefined): Set<string> {
  return new Set((list ?? '').split(',').map((name) => name.trim().toLowerCase()));
}

function mayGoToApp(name: string): boolean {
  if (HOP.has(name) || NOT_FOR_APPS.has(name)) return false;
  if (name.startsWith('x-fal-')) return name === HANDED_ON;
  return !name.startsWith('x-runmesh-');
}

/** Headers of a request as the app shall see them, flat. `connection` is the request's own Connection header. */
export function headersForApp(raw: readonly string[], connection: string | undefined): string[] {
  const dropped = connection === undefined ? undefined : named(connection);
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = (raw[at] ?? '').toLowerCase();
    if (mayGoToApp(name) && !dropped?.has(name)) kept.push(name, raw[at + 1] ?? '');
  }
  return kept;
}

/**
 * Headers of a queued request, kept with it. The result goes to another HTTP exchange, perhaps another client: what
 * the submitter could decode (`accept-encoding`) says nothing about it.
 */
export function headersToKeep(raw: readonly string[], connection: string | undefined): Headers {
  const flat = headersForApp(raw, connection);
  const kept: Headers = [];
  for (let at = 0; at + 1 < flat.length; at += 2) {
    const name = flat[at] ?? '';
    if (name !== 'accept-encoding') kept.push([name, flat[at + 1] ?? '']);
  }
  return kept;
}

/** Whether a header of the app's response reaches the caller. */
export function mayGoToCaller(name: string, status: number): boolean {
  if (HOP.has(name) || NOT_FOR_CALLERS.has(name) || name.startsWith('x-runmesh-')) return false;
  return name !== 'x-fal-needs-retry' || status === 429 || status >= 500;
}
