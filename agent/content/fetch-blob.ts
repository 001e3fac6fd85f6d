// A blob onto this node: from the store when it is there, otherwise by one flight per blob (F51) from the origin, with
// retries that go on where the last broke off. Peers come in at `#sources`, before the origin.
//
//   C1  what arrives is verified by the ingest, whoever sent it.
//   C4  who wants to keep the blob pins it before it is fetched.
import { backoffMs } from '../../shared/backoff.ts';
import type { Chance } from '../../shared/chance.ts';
import { sleep, type Clock } from '../../shared/clock.ts';
import type { Digest } from '../../shared/digest.ts';
import { Failure, asFailure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import { CacheStats, type BlobSource } from './cache-stats.ts';
import type { ContentStore } from './content-store.ts';
import { isDiskFull } from '../../shared/durable-folder.ts';
import { Flights } from './flights.ts';
import type { Ingest } from './ingest.ts';
import type { Origin } from './origin.ts';

export interface BlobProgress {
  doneBytes: number;
  /** Unknown until an origin says it. */
  totalBytes?: number;
}

export interface WantedBlob {
  /** Absent for a file whose digest nobody told us: then `key` says which it is. */
  digest?: Digest;
  key?: string;
  sizeBytes?: number;
  /** Most bytes taken when no size is known. */
  maxBytes?: number;
  origin: Origin;
  progress?: (progress: BlobProgress) => void;
}

export interface FetchedBlob {
  digest: Digest;
  sizeBytes: number;
  source: BlobSource;
}

export interface BlobFetcherOptions {
  store: ContentStore;
  clock: Clock;
  chance: Chance;
  stats?: CacheStats;
  /** First wait and longest wait between tries. */
  backoff?: { baseMs: number; capMs: number };
}

const BACKOFF = { baseMs: 500, capMs: 15_000 };
/** Bytes that were wrong once may be a fault on the way; wrong twice they are the origin's. */
const MISMATCHES = 2;

export class BlobFetcher {
  readonly stats: CacheStats;
  readonly #store: ContentStore;
  readonly #clock: Clock;
  readonly #chance: Chance;
  readonly #backoff: { baseMs: number; capMs: number };
  readonly #flights = new Flights<FetchedBlob, BlobProgress>();

  constructor(options: BlobFetcherOptions) {
    this.stats = options.stats ?? new CacheStats();
    this.#store = options.store;
    this.#clock = options.clock;
    this.#chance = options.chance;
    this.#backoff = options.backoff ?? BACKOFF;
  }

  /** @throws Failure of the origin, DIGEST_MISMATCH, BLOB_TOO_LARGE, DISK_FULL; the signal's reason */
  async fetch(wanted: WantedBlob, signal: AbortSignal): Promise<FetchedBlob> {
    for (;;) {
      const local = this.#local(wanted);
      if (local) return local;
      const key = wanted.digest ?? `origin ${wanted.key ?? wanted.origin.name}`;
      const end = await this.#flights.board(
        key,
        (tell, flight) => this.#fly(wanted, tell, flight),
        wanted.progress,
        signal,
      );
      if (end.joined) this.stats.joined += 1;
      if ('result' in end) return end.result;
      // Somebody else's flight used somebody else's right to read: try with our own.
      const failure = asFailure(end.failure, 'ORIGIN_UNAVAILABLE');
      const mayDiffer = failure.retry === 'never' && failure.code !== 'BLOB_TOO_LARGE';
      if (!end.joined || !mayDiffer) throw failure;
    }
  }

  #local({ digest, progress }: WantedBlob): FetchedBlob | undefined {
    if (digest === undefined) return undefined;
    const sizeBytes = this.#store.sizeOf(digest);
    if (sizeBytes === undefined) return undefined;
    this.stats.sources.local.blobs += 1;
    this.stats.sources.local.bytes += sizeBytes;
    progress?.({ doneBytes: sizeBytes, totalBytes: sizeBytes });
    return { digest, sizeBytes, source: 'local' };
  }

  /** Tries until the blob is there, the failure is final, or too many followed each other without a byte. */
  async #fly(
    wanted: WantedBlob,
    tell: (progress: BlobProgress) => void,
    signal: AbortSignal,
  ): Promise<FetchedBlob> {
    using _ = this.#store.countIngest();
    try {
      await using ingest = await this.#store.ingest(wanted);
      let failedTries = 0;
      let mismatches = 0;
      for (;;) {
        const before = ingest.sizeBytes;
        try {
          await this.#transfer(wanted, ingest, tell, signal);
          const done = await this.#store.commit(ingest);
          this.stats.sources.origin.blobs += 1;
          return { ...done, source: 'origin' };
        } catch (error) {
          signal.throwIfAborted();
          const failure = originFailure(error, wanted.origin.name);
          if (failure.code === 'DIGEST_MISMATCH') {
            mismatches += 1;
            if (mismatches < MISMATCHES) await ingest.restart();
          }
          failedTries = ingest.sizeBytes > before ? 1 : failedTries + 1;
          const isFinal = failedTries >= limits.originTries || mismatches >= MISMATCHES;
          if (failure.retry !== 'later' || isFinal) throw failure;
          await this.#pause(failure, failedTries, signal);
          this.stats.retries += 1;
        }
      }
    } catch (error) {
      if (signal.aborted) this.stats.abandoned += 1;
      else this.stats.failures += 1;
      throw error;
    }
  }

  /** One stream of the origin into the ingest, from where the ingest stands. */
  async #transfer(
    wanted: WantedBlob,
    ingest: Ingest,
    tell: (progress: BlobProgress) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { origin, digest } = wanted;
    const asked = {
      ...(digest === undefined ? {} : { digest }),
      ...(wanted.sizeBytes === undefined ? {} : { sizeBytes: wanted.sizeBytes }),
    };
    const opened = await origin.open({ ...asked, offset: ingest.sizeBytes }, signal);
    let skipBytes = ingest.sizeBytes - opened.offset;
    const totalBytes = wanted.sizeBytes ?? opened.sizeBytes;
    // Without a digest nothing would show that the second part belongs to another version.
    if (skipBytes > 0 && digest === undefined) {
      await ingest.restart();
      skipBytes = 0;
    }
    if (skipBytes < 0) {
      opened.stream.destroy();
      throw new Failure('ORIGIN_UNAVAILABLE', `${origin.name} answered from beyond what was asked`);
    }
    const news = (): BlobProgress =>
      totalBytes === undefined
        ? { doneBytes: ingest.sizeBytes }
        : { doneBytes: ingest.sizeBytes, totalBytes };
    try {
      for await (const chunk of opened.stream as AsyncIterable<Uint8Array>) {
        signal.throwIfAborted();
        this.stats.sources.origin.bytes += chunk.byteLength;
        const fresh = skipBytes > 0 ? chunk.subarray(Math.min(skipBytes, chunk.length)) : chunk;
        skipBytes -= chunk.byteLength - fresh.byteLength;
        if (fresh.byteLength === 0) continue;
        await ingest.write(fresh);
        tell(news());
      }
    } finally {
      opened.stream.destroy();
    }
    if (totalBytes !== undefined && ingest.sizeBytes < totalBytes)
      throw new Failure(
        'ORIGIN_UNAVAILABLE',
        `${origin.name} ended after ${ingest.sizeBytes} of ${totalBytes} bytes`,
      );
    tell(news());
  }

  async #pause(failure: Failure, failedTries: number, signal: AbortSignal): Promise<void> {
    const asked = failure.detail['retryAfterMs'];
    const jitterMs = backoffMs(this.#backoff, failedTries - 1, this.#chance, 'fetch retry');
    const waitMs = typeof asked === 'number' ? Math.max(asked, jitterMs) : jitterMs;
    await sleep(this.#clock, Math.min(waitMs, limits.retryAfterMs), signal);
  }
}

/** What broke a transfer, with a code: our own failures as they are, anything else is the origin's. */
function originFailure(thrown: unknown, name: string): Failure {
  if (thrown instanceof Failure) return thrown;
  if (isDiskFull(thrown)) return new Failure('DISK_FULL', 'no space left', { cause: thrown });
  return new Failure('ORIGIN_UNAVAILABLE', `${name} broke off`, { cause: thrown });
}
