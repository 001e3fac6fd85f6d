// Bulk bytes between agent and coordinator, over HTTP with the attempt's token: a large input is read from
// `/agent/payloads/<sha256>`, a large result is put to `/agent/results/<token>`.
//   V1  The last piece of an input is let through only when the digest of the whole is right: what is wrong never
//       becomes a complete request.
import { createReadStream } from 'node:fs';
import { pipeline, Transform, type Readable } from 'node:stream';
import { request, type Dispatcher } from 'undici';
import { z } from 'zod';
import type { Clock } from '../../shared/clock.ts';
import { Hashing, isDigest, type Digest } from '../../shared/digest.ts';
import { asFailure, Failure } from '../../shared/failure.ts';
import { CoordinatorOrigin } from '../content/coordinator-origin.ts';

export interface CoordinatorHttp {
  /** `http://host:port/` */
  base: URL;
  clock: Clock;
  /** Connections to the coordinator. */
  dispatcher: Dispatcher;
}

/** @throws Failure ORIGIN_UNAVAILABLE, NOT_FOUND, UNAUTHORIZED; the stream fails with DIGEST_MISMATCH */
export async function openInput(
  http: CoordinatorHttp,
  token: string,
  input: { digest: Digest; sizeBytes: number },
  signal: AbortSignal,
): Promise<Readable> {
  const origin = new CoordinatorOrigin({ ...http, token });
  const { stream } = await origin.open(input, signal);
  const checked = checkedStream(input);
  // The error of either side reaches whoever reads `checked`.
  pipeline(stream, checked, () => undefined);
  return checked;
}

function checkedStream(input: { digest: Digest; sizeBytes: number }): Transform {
  const hashing = new Hashing();
  let held: Buffer | undefined;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hashing.update(chunk);
      if (hashing.sizeBytes > input.sizeBytes)
        return done(new Failure('DIGEST_MISMATCH', 'an input is longer than it was said to be'));
      const before = held;
      held = chunk;
      done(null, before);
    },
    flush(done) {
      if (hashing.digest() === input.digest) return done(null, held); // V1
      done(new Failure('DIGEST_MISMATCH', 'an input does not have its digest'));
    },
  });
}

export type Upload =
  | { kind: 'stored' }
  /** The coordinator does not know the attempt any more: nobody waits for this. */
  | { kind: 'unwanted' }
  | { kind: 'failed'; failure: Failure };

const stored = z.object({ digest: z.string().refine(isDigest), sizeBytes: z.number() });

/** Puts a result body; never rejects. */
export async function putResult(
  http: CoordinatorHttp,
  token: string,
  body: { path: string; digest: Digest; sizeBytes: number },
  signal: AbortSignal,
): Promise<Upload> {
  const file = createReadStream(body.path);
  try {
    const url = new URL(`agent/results/${encodeURIComponent(token)}`, http.base);
    const answer = await request(url, {
      method: 'PUT',
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/octet-stream',
        'content-length': String(body.sizeBytes),
      },
      body: file,
      dispatcher: http.dispatcher,
      signal,
    });
    if (answer.statusCode === 404 || answer.statusCode === 410) {
      await answer.body.dump({ limit: 65_536, signal });
      return { kind: 'unwanted' };
    }
    if (answer.statusCode < 200 || answer.statusCode > 299) {
      await answer.body.dump({ limit: 65_536, signal });
      const code = answer.statusCode === 413 ? 'RUNNER_RESPONSE_TOO_LARGE' : 'ORIGIN_UNAVAILABLE';
      return failed(new Failure(code, `the coordinator answers ${answer.statusCode} to a result`));
    }
    const said = stored.safeParse(await answer.body.json());
    if (said.success && said.data.digest === body.digest && said.data.sizeBytes === body.sizeBytes)
      return { kind: 'stored' };
    return failed(new Failure('DIGEST_MISMATCH', 'the coordinator stored other bytes than ours'));
  } catch (thrown) {
    return failed(asFailure(thrown, 'ORIGIN_UNAVAILABLE'));
  } finally {
    file.destroy();
  }
}

function failed(failure: Failure): Upload {
  return { kind: 'failed', failure };
}
