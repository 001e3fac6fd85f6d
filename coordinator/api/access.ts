// Who may talk to the API from where. Two modes:
//
// - with a token: every call carries it (`Authorization: Key <token>` or `Bearer <token>`); hosts are not looked at.
// - without one (development, loopback only): any Authorization is accepted, but no web page may reach us. A page can
//   send requests to 127.0.0.1, and a hostile name can be made to point there, so an unknown Host and a foreign
//   Origin are refused before anything else is looked at (DESIGN §9).
//
// CORS headers go to allowed origins only.
import type { IncomingMessage } from 'node:http';
import { Failure } from '../../shared/failure.ts';
import { isLoopbackHost } from '../../shared/host-port.ts';
import { sameText } from '../../shared/token.ts';
import { headerOf } from './exchange.ts';

export interface AccessRules {
  /** The shared secret; undefined: development mode. */
  token: string | undefined;
  /** Host names that are ours besides loopback and fal's. */
  allowedHosts: readonly string[];
  /** Origins of web pages that may call, `scheme://host[:port]`. */
  allowedOrigins: readonly string[];
}

/** fal's own host names, for those who point DNS at us. */
export const FAL_HOSTS: Readonly<Record<string, string>> = {
  'fal.run': '/run',
  'queue.fal.run': '/queue',
  'rest.fal.ai': '/rest',
  'ws.fal.run': '/ws',
};

/** Host name of a Host header or an authority, without port and brackets, in lowercase. */
export function hostNameOf(authority: string): string {
  const bracket = /^\[([^\]]*)\](?::\d*)?$/.exec(authority);
  return (bracket?.[1] ?? authority.replace(/:\d*$/, '')).toLowerCase();
}

/** @throws Failure FORBIDDEN naming the header: development mode was reached by a name or a page that is not ours */
export function checkPlace(rules: AccessRules, req: IncomingMessage): void {
  const origin = headerOf(req, 'origin');
  if (origin !== undefined && rules.token === undefined && !isAllowedOrigin(rules, origin))
    throw new Failure('FORBIDDEN', 'Origin: this web page may not call here (see allowed_origins)');
  if (rules.token !== undefined) return;
  const host = hostNameOf(headerOf(req, 'host') ?? 'localhost');
  const known =
    isLoopbackHost(host) || Object.hasOwn(FAL_HOSTS, host) || rules.allowedHosts.includes(host);
  if (!known)
    throw new Failure(
      'FORBIDDEN',
      'Host: this name is not ours in development mode (see allowed_hosts)',
    );
}

/** @throws Failure UNAUTHORIZED */
export function checkCaller(rules: AccessRules, req: IncomingMessage): void {
  if (rules.token === undefined) return;
  const given = /^(?:key|bearer) +(\S+)$/i.exec(headerOf(req, 'authorization') ?? '')?.[1];
  if (given === undefined || !sameText(given, rules.token))
    throw new Failure(
      'UNAUTHORIZED',
      'Authorization: expected `Key <token>` with the token of this coordinator',
    );
}

function isAllowedOrigin(rules: AccessRules, origin: string): boolean {
  if (rules.allowedOrigins.includes(origin)) return true;
  const authority = /^https?:\/\/([^/]+)$/.exec(origin)?.[1];
  return (
    rules.token === undefined && authority !== undefined && isLoopbackHost(hostNameOf(authority))
  );
}

const NO_CORS: readonly string[] = [];
const EXPOSED = 'x-fal-request-id, x-fal-request-timeout-type, x-fal-error-type, x-fal-served-from';

/** Headers for a response to this request, flat. */
export function corsHeaders(rules: AccessRules, req: IncomingMessage): readonly string[] {
  const origin = headerOf(req, 'origin');
  if (origin === undefined || !isAllowedOrigin(rules, origin)) return NO_CORS;
  return [
    'access-control-allow-origin',
    origin,
    'access-control-expose-headers',
    EXPOSED,
    'vary',
    'origin',
  ];
}

/** A browser's question before the real call; its answer's headers, or undefined where it is an ordinary OPTIONS. */
export function preflightHeaders(req: IncomingMessage): string[] | undefined {
  if (req.method !== 'OPTIONS' || headerOf(req, 'access-control-request-method') === undefined)
    return undefined;
  return [
    'access-control-allow-methods',
    'GET, POST, PUT, PATCH, DELETE',
    'access-control-allow-headers',
    // A wildcard does not cover x-fal-* together with authorization, so what is asked for is repeated.
    headerOf(req, 'access-control-request-headers') ?? 'authorization, content-type, accept',
    'access-control-max-age',
    '600',
  ];
}
