// A reader of one OCI registry (distribution spec 1.1, pull half): manifests and blobs, with anonymous, token and basic
// access. What comes back is not trusted: manifests are checked against their digest here, blobs by whoever stores
// them. `urls` of foreign layers are never looked at. Loops end: one 401 is answered once, redirects are counted.
import type { Agent } from 'undici';
import type { Clock } from '../clock.ts';
import { digestOf, isDigest, type Digest } from '../digest.ts';
import { Failure, type FailureDetail } from '../failure.ts';
import {
  discard,
  headerOf,
  httpGet,
  originAgent,
  readBody,
  retryAfterMs,
  type GetAnswer,
} from '../http-get.ts';
import { registryBase } from '../image-ref.ts';
import { limits } from '../limits.ts';
import { parseChallenges } from './challenge.ts';
import { manifestTypes } from './manifest.ts';
import { RegistryTokens, type RegistryCredentials } from './registry-token.ts';

export interface RegistryClientOptions {
  /** As in a reference: `docker.io`, `localhost:5000`. */
  registry: string;
  clock: Clock;
  credentials?: RegistryCredentials;
}

export interface FetchedManifest {
  digest: Digest;
  /** Of the Content-Type header, without parameters. */
  contentType: string;
  body: Buffer;
}

export class RegistryClient implements AsyncDisposable {
  readonly base: URL;
  readonly #clock: Clock;
  readonly #agent: Agent;
  readonly #tokens: RegistryTokens;

  constructor(options: RegistryClientOptions) {
    this.base = registryBase(options.registry);
    this.#clock = options.clock;
    this.#agent = originAgent({ connections: 8 });
    this.#tokens = new RegistryTokens({
      registry: this.base,
      clock: options.clock,
      dispatcher: this.#agent,
      ...(options.credentials ? { credentials: options.credentials } : {}),
    });
  }

  /**
   * The manifest or index behind a tag or a digest, held against the digest asked for or announced.
   * @throws Failure IMAGE_NOT_FOUND, IMAGE_INVALID, DIGEST_MISMATCH, REGISTRY_*
   */
  async manifest(
    repository: string,
    reference: string,
    signal: AbortSignal,
  ): Promise<FetchedManifest> {
    const shown = `${this.base.host}/${repository}${isDigest(reference) ? '@' : ':'}${reference}`;
    const answer = await this.#get(
      { repository, path: `manifests/${reference}`, shown, accept: manifestTypes.join(', ') },
      signal,
    );
    if (answer.status !== 200) throw await this.#refusal(answer, shown);
    const body = await readBody(
      answer,
      limits.manifestBytes,
      'REGISTRY_UNAVAILABLE',
      'IMAGE_INVALID',
    );
    const digest = digestOf(body);
    const announced = headerOf(answer.headers, 'docker-content-digest');
    const wanted = isDigest(reference) ? reference : announced;
    if (wanted !== undefined && isDigest(wanted) && wanted !== digest)
      throw new Failure('DIGEST_MISMATCH', `${shown}: the registry sent a manifest ${digest}`);
    const contentType = headerOf(answer.headers, 'content-type') ?? '';
    return { digest, contentType: contentType.split(';')[0]?.trim().toLowerCase() ?? '', body };
  }

  /**
   * A blob from `offset` on. A registry that cannot seek answers from 0, and `offset` says so.
   * @throws Failure IMAGE_NOT_FOUND, REGISTRY_*
   */
  async blob(
    repository: string,
    digest: Digest,
    offset: number,
    signal: AbortSignal,
  ): Promise<{ answer: GetAnswer; offset: number; sizeBytes?: number }> {
    const shown = `${this.base.host}/${repository}@${digest}`;
    const path = `blobs/${digest}`;
    const answer = await this.#get({ repository, path, shown, offset }, signal);
    if (answer.status === 200) {
      const length = headerOf(answer.headers, 'content-length');
      return { answer, offset: 0, ...(length ? { sizeBytes: Number(length) } : {}) };
    }
    const range = headerOf(answer.headers, 'content-range') ?? '';
    const [, from, size] = /^bytes ([0-9]+)-[0-9]+\/([0-9]+|\*)$/.exec(range) ?? [];
    if (answer.status === 206 && Number(from) === offset)
      return { answer, offset, ...(size && size !== '*' ? { sizeBytes: Number(size) } : {}) };
    throw await this.#refusal(answer, shown);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  /** One GET, with one answer to a 401; a token that was kept and is refused is asked for anew. */
  async #get(
    wanted: { repository: string; path: string; shown: string; accept?: string; offset?: number },
    signal: AbortSignal,
  ): Promise<GetAnswer> {
    const { repository, shown, offset = 0 } = wanted;
    const url = new URL(`v2/${repository}/${wanted.path}`, this.base);
    const headers: Record<string, string> = { 'accept-encoding': 'identity' };
    if (wanted.accept !== undefined) headers['accept'] = wanted.accept;
    if (offset > 0) headers['range'] = `bytes=${offset}-`;
    let authorization = this.#tokens.known(repository);
    for (let answered = false; ; answered = true) {
      const answer = await httpGet(
        url,
        {
          dispatcher: this.#agent,
          failure: 'REGISTRY_UNAVAILABLE',
          headers,
          ...(authorization === undefined ? {} : { authorization }),
        },
        signal,
      );
      if (answer.status !== 401 || answer.url.origin !== this.base.origin) return answer;
      if (answered) {
        this.#tokens.forget(repository);
        return answer;
      }
      await discard(answer);
      const challenge = answer.headers['www-authenticate'];
      const header = (Array.isArray(challenge) ? challenge.join(', ') : challenge) ?? '';
      if (header.length > limits.challengeBytes)
        throw new Failure('REGISTRY_UNAVAILABLE', `${shown}: the 401 has a huge challenge`);
      authorization = await this.#tokens.answer(parseChallenges(header), repository, signal);
    }
  }

  /** What an answer that is no success means, and what to do next. */
  async #refusal(answer: GetAnswer, shown: string): Promise<Failure> {
    await discard(answer);
    const { status } = answer;
    const via = answer.url.host === this.base.host ? '' : ` (by ${answer.url.host})`;
    const wait = retryAfterMs(answer.headers, this.#clock.now());
    const detail: FailureDetail = { status, image: shown };
    if (wait !== undefined) detail['retryAfterMs'] = wait;
    if (status === 401)
      return new Failure(
        'REGISTRY_UNAUTHORIZED',
        `${shown}: the registry says 401${via}; there is no such image, or it needs (other) credentials`,
        { detail },
      );
    if (status === 403)
      return new Failure(
        'REGISTRY_FORBIDDEN',
        `${shown}: the registry refuses access${via}; ask its owner for the right to pull`,
        { detail },
      );
    if (status === 404)
      return new Failure(
        'IMAGE_NOT_FOUND',
        `${shown}: the registry has no such image${via}; check the name and the tag`,
        { detail },
      );
    if (status === 429)
      return new Failure(
        'REGISTRY_BUSY',
        `${shown}: the registry says too many requests${via}; wait, or use credentials`,
        { detail },
      );
    return new Failure(
      'REGISTRY_UNAVAILABLE',
      `${shown}: the registry answers with status ${status}${via}`,
      { detail },
    );
  }
}
