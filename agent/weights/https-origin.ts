// One http(s) URL as an origin. Whose URL it is, is an app owner's: so addresses are guarded at every hop
// (shared/address-guard.ts) and nothing of ours is sent along. A later part is only taken when the file is still the
// same one (`If-Range` with a strong ETag, or Last-Modified); otherwise the origin begins again from 0.
import type { Dispatcher } from 'undici';
import type { AddressGuard } from '../../shared/address-guard.ts';
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import {
  discard,
  headerOf,
  httpGet,
  retryAfterMs,
  shownUrl,
  type GetAnswer,
} from '../../shared/http-get.ts';
import { answerStream } from '../content/answer-stream.ts';
import type { BlobRequest, BlobStream, Origin } from '../content/origin.ts';

export interface HttpsOriginOptions {
  url: string;
  guard: AddressGuard;
  /** `guard.agent()`, owned by the caller. */
  dispatcher: Dispatcher;
  clock: Clock;
}

export class HttpsOrigin implements Origin {
  readonly name: string;
  readonly #url: URL;
  readonly #options: HttpsOriginOptions;
  /** Of the first answer: what a later part must still match. */
  #validator: string | undefined;

  /** @throws Failure INPUT_INVALID for what is no http(s) URL, or carries a user name */
  constructor(options: HttpsOriginOptions) {
    this.#url = parseUrl(options.url);
    this.#options = options;
    this.name = shownUrl(this.#url);
  }

  /** @throws Failure ORIGIN_UNAVAILABLE, ORIGIN_FORBIDDEN_ADDRESS, NOT_FOUND, FORBIDDEN */
  async open(request: BlobRequest, signal: AbortSignal): Promise<BlobStream> {
    const mayResume = (request.offset ?? 0) > 0 && this.#validator !== undefined;
    const offset = mayResume ? (request.offset ?? 0) : 0;
    const answer = await this.#ask(
      'GET',
      mayResume && this.#validator !== undefined
        ? { range: `bytes=${offset}-`, 'if-range': this.#validator }
        : {},
      signal,
    );
    if (answer.status === 200) this.#validator = validatorOf(answer);
    const stream = answerStream(answer, offset);
    if (stream) return stream;
    throw await this.#refusal(answer);
  }

  /** The strong ETag, without the bytes; undefined when the server has none, knows no HEAD or does not answer now. */
  async etag(signal: AbortSignal): Promise<string | undefined> {
    try {
      const answer = await this.#ask('HEAD', {}, signal);
      await discard(answer);
      return answer.status === 200 ? strongEtag(answer) : undefined;
    } catch (error) {
      if (error instanceof Failure && error.code === 'ORIGIN_UNAVAILABLE') return undefined;
      throw error;
    }
  }

  #ask(
    method: 'GET' | 'HEAD',
    headers: Record<string, string>,
    signal: AbortSignal,
  ): Promise<GetAnswer> {
    const { guard, dispatcher } = this.#options;
    return httpGet(
      this.#url,
      {
        method,
        headers: { 'accept-encoding': 'identity', ...headers },
        dispatcher,
        failure: 'ORIGIN_UNAVAILABLE',
        judge: (url) => guard.judge(url),
      },
      signal,
    );
  }

  async #refusal(answer: GetAnswer): Promise<Failure> {
    await discard(answer);
    const { status } = answer;
    if (status === 404 || status === 410)
      return new Failure('NOT_FOUND', `${this.name}: there is no such file (status ${status})`);
    if (status >= 400 && status < 500 && ![408, 416, 429].includes(status))
      return new Failure('FORBIDDEN', `${this.name}: the server refuses (status ${status})`);
    if (status === 416) this.#validator = undefined;
    const waitMs = retryAfterMs(answer.headers, this.#options.clock.now());
    return new Failure('ORIGIN_UNAVAILABLE', `${this.name} answers with status ${status}`, {
      detail: waitMs === undefined ? { status } : { status, retryAfterMs: waitMs },
    });
  }
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || (url.protocol !== 'https:' && url.protocol !== 'http:'))
    throw new Failure('INPUT_INVALID', 'expected an http(s) URL');
  if (url.username !== '' || url.password !== '')
    throw new Failure('INPUT_INVALID', `${shownUrl(url)}: a URL with a user name is not taken`);
  return url;
}

function strongEtag(answer: GetAnswer): string | undefined {
  const etag = headerOf(answer.headers, 'etag')?.trim();
  return etag !== undefined && /^"[^"]+"$/.test(etag) ? etag : undefined;
}

function validatorOf(answer: GetAnswer): string | undefined {
  return strongEtag(answer) ?? headerOf(answer.headers, 'last-modified');
}
