// The coordinator as an origin: payloads and packed folders by digest, with a bearer token that lets one digest be read.
import type { Dispatcher } from 'undici';
import type { Clock } from '../../shared/clock.ts';
import { hexOf } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { discard, httpGet, retryAfterMs } from '../../shared/http-get.ts';
import type { BlobRequest, BlobStream, Origin } from './origin.ts';
import { answerStream } from './answer-stream.ts';

export interface CoordinatorOriginOptions {
  /** `http://host:8800` */
  base: URL;
  /** For this one digest (shared/token.ts, grant). */
  token: string;
  clock: Clock;
  /** The agent's connections to its coordinator; owned by whoever made it. */
  dispatcher: Dispatcher;
}

export class CoordinatorOrigin implements Origin {
  readonly name = 'coordinator';
  readonly #options: CoordinatorOriginOptions;

  constructor(options: CoordinatorOriginOptions) {
    this.#options = options;
  }

  /** @throws Failure ORIGIN_UNAVAILABLE, NOT_FOUND, UNAUTHORIZED */
  async open(request: BlobRequest, signal: AbortSignal): Promise<BlobStream> {
    const { base, token, clock, dispatcher } = this.#options;
    const { digest, offset = 0 } = request;
    if (digest === undefined)
      throw new Failure('INPUT_INVALID', 'a payload is asked for by digest');
    const answer = await httpGet(
      new URL(`agent/payloads/${hexOf(digest)}`, base),
      {
        dispatcher,
        failure: 'ORIGIN_UNAVAILABLE',
        authorization: `Bearer ${token}`,
        redirects: 0,
        ...(offset > 0 ? { headers: { range: `bytes=${offset}-` } } : {}),
      },
      signal,
    );
    const stream = answerStream(answer, offset);
    if (stream) return stream;
    await discard(answer);
    const { status } = answer;
    if (status === 404) throw new Failure('NOT_FOUND', `the coordinator does not have ${digest}`);
    if (status === 401 || status === 403)
      throw new Failure('UNAUTHORIZED', `the coordinator does not let us read ${digest}`);
    const waitMs = retryAfterMs(answer.headers, clock.now());
    throw new Failure('ORIGIN_UNAVAILABLE', `the coordinator answers with status ${status}`, {
      detail: waitMs === undefined ? { status } : { status, retryAfterMs: waitMs },
    });
  }
}
