// How a registry's 401 is answered: a token from its realm (distribution token spec), or basic credentials. Tokens are
// kept per (realm, service, scope) of one client, and renewed at 80 % of their life. Credentials go to the realm over
// https only, or to loopback from a loopback registry.
import type { Dispatcher } from 'undici';
import type { Clock } from '../clock.ts';
import { Failure } from '../failure.ts';
import { discard, httpGet, readBody } from '../http-get.ts';
import { isLoopbackHost } from '../host-port.ts';
import { limits } from '../limits.ts';
import type { Challenge } from './challenge.ts';

export interface RegistryCredentials {
  username: string;
  password: string;
}

/** Life of a token that names none (token spec). */
const DEFAULT_LIFE_S = 60;
const USED_SHARE_OF_LIFE = 0.8;

interface HeldToken {
  authorization: string;
  /** Clock.elapsed() when it is no longer used. */
  untilMs: number;
}

export class RegistryTokens {
  readonly #clock: Clock;
  readonly #dispatcher: Dispatcher;
  readonly #registry: URL;
  readonly #credentials: RegistryCredentials | undefined;
  readonly #held = new Map<string, HeldToken>();

  constructor(options: {
    registry: URL;
    clock: Clock;
    dispatcher: Dispatcher;
    credentials?: RegistryCredentials;
  }) {
    this.#registry = options.registry;
    this.#clock = options.clock;
    this.#dispatcher = options.dispatcher;
    this.#credentials = options.credentials;
  }

  /** An `Authorization` that still holds for the repository, when one is known. */
  known(repository: string): string | undefined {
    const held = this.#held.get(repository);
    return held && held.untilMs > this.#clock.elapsed() ? held.authorization : undefined;
  }

  forget(repository: string): void {
    this.#held.delete(repository);
  }

  /**
   * Answers a 401 of `repository`: what to send as `Authorization`.
   * @throws Failure REGISTRY_UNAUTHORIZED, REGISTRY_UNAVAILABLE
   */
  async answer(
    challenges: readonly Challenge[],
    repository: string,
    signal: AbortSignal,
  ): Promise<string> {
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer) return this.#fetch(bearer, repository, signal);
    const basic = challenges.some(({ scheme }) => scheme === 'basic');
    if (basic && this.#credentials) {
      const authorization = basicOf(this.#credentials);
      this.#held.set(repository, { authorization, untilMs: Number.POSITIVE_INFINITY });
      return authorization;
    }
    const wanted = challenges.map(({ scheme }) => scheme).join(', ') || 'nothing we know';
    throw new Failure(
      'REGISTRY_UNAUTHORIZED',
      basic
        ? `${this.#registry.host} wants a user name and a password for ${repository}`
        : `${this.#registry.host} asks for ${wanted}; only Bearer and Basic are spoken`,
    );
  }

  async #fetch(challenge: Challenge, repository: string, signal: AbortSignal): Promise<string> {
    const url = this.#realm(challenge);
    const service = challenge.params.get('service');
    const scope = challenge.params.get('scope') ?? `repository:${repository}:pull`;
    if (service !== undefined) url.searchParams.set('service', service);
    for (const one of scope.split(' ')) url.searchParams.append('scope', one);
    const answer = await httpGet(
      url,
      {
        dispatcher: this.#dispatcher,
        failure: 'REGISTRY_UNAVAILABLE',
        redirects: 0,
        ...(this.#credentials ? { authorization: basicOf(this.#credentials) } : {}),
      },
      signal,
    );
    if (answer.status !== 200) {
      await discard(answer);
      const isRefused = answer.status >= 400 && answer.status < 500 && answer.status !== 429;
      throw new Failure(
        isRefused ? 'REGISTRY_UNAUTHORIZED' : 'REGISTRY_UNAVAILABLE',
        `${url.host} gives no token for ${repository} (status ${answer.status})` +
          (this.#credentials ? ': check user name and password' : ''),
      );
    }
    const { token, lifeS } = readToken(
      await readBody(answer, limits.tokenBytes, 'REGISTRY_UNAVAILABLE'),
      url.host,
    );
    const authorization = `Bearer ${token}`;
    const untilMs = this.#clock.elapsed() + lifeS * USED_SHARE_OF_LIFE * 1000;
    this.#held.set(repository, { authorization, untilMs });
    return authorization;
  }

  /** @throws Failure REGISTRY_UNAUTHORIZED when nothing may be sent there */
  #realm(challenge: Challenge): URL {
    const realm = challenge.params.get('realm') ?? '';
    const refuse = (problem: string): never => {
      throw new Failure('REGISTRY_UNAUTHORIZED', `${this.#registry.host}: ${problem}`);
    };
    if (!URL.canParse(realm)) return refuse('its token realm is no URL');
    const url = new URL(realm);
    const isLocal = isLoopbackHost(url.hostname) && isLoopbackHost(this.#registry.hostname);
    const isHttp = url.protocol === 'http:' && isLocal;
    const isHttps = url.protocol === 'https:' && (isLocal || !isLoopbackHost(url.hostname));
    if (!isHttp && !isHttps)
      return refuse('its token realm is neither https nor on the same loopback');
    url.username = '';
    url.password = '';
    return url;
  }
}

function basicOf(credentials: RegistryCredentials): string {
  const { username, password } = credentials;
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function readToken(body: Buffer, host: string): { token: string; lifeS: number } {
  const bad = (): never => {
    throw new Failure('REGISTRY_UNAVAILABLE', `${host} sent a token answer that cannot be read`);
  };
  let json: unknown;
  try {
    json = JSON.parse(body.toString('utf8'));
  } catch {
    return bad();
  }
  if (typeof json !== 'object' || json === null) return bad();
  const fields = new Map<string, unknown>(Object.entries(json));
  const token = fields.get('token') || fields.get('access_token');
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) return bad();
  const life = fields.get('expires_in');
  const lifeS = typeof life === 'number' && life > 0 ? life : DEFAULT_LIFE_S;
  return { token, lifeS: Math.max(lifeS, DEFAULT_LIFE_S) };
}
