// The declared weights of an app onto this node: each entry of the app file becomes a blob in the store and a read-only
// file in the runner. With `sha256` the digest is the identity; without, it is (URL, strong ETag), remembered as an
// alias, so that an unchanged file is not fetched again.
//
//   C1  a file is handed out when its blob is complete and, with `sha256`, verified.
//   C4  the blobs are pinned until the caller disposes of the pin.
import type { Dispatcher } from 'undici';
import type { AddressGuard } from '../../shared/address-guard.ts';
import type { Clock } from '../../shared/clock.ts';
import { digestOf, isDigest, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { Aliases } from '../content/aliases.ts';
import type { ContentStore } from '../content/content-store.ts';
import type { BlobFetcher, BlobProgress, FetchedBlob } from '../content/fetch-blob.ts';
import { Gate } from '../content/gate.ts';
import { joinPins, type Pin } from '../content/pins.ts';
import type { FileMount } from '../runner/driver.ts';
import { HttpsOrigin } from './https-origin.ts';

/** As in the app file. */
export interface WeightEntry {
  from: string;
  /** 64 hex digits. */
  sha256?: string;
  to: string;
}

export interface WeightsProgress {
  doneBytes: number;
  /** Sum of what is known; rises while origins tell their sizes. */
  totalBytes: number;
  doneFiles: number;
  totalFiles: number;
}

export interface FetchWeightsOptions {
  store: ContentStore;
  fetcher: BlobFetcher;
  aliases: Aliases;
  clock: Clock;
  guard: AddressGuard;
  progress?: (progress: WeightsProgress) => void;
}

export interface FetchedWeights {
  files: readonly FileMount[];
  pin: Pin;
  /** Bytes that came from elsewhere. */
  pulledBytes: number;
}

type Wanted = { url: string; digest: Digest | undefined; target: string; field: string };

/** @throws Failure INPUT_INVALID, NOT_SUPPORTED, ORIGIN_*, NOT_FOUND, FORBIDDEN, DIGEST_MISMATCH, DISK_FULL */
export async function fetchWeights(
  entries: readonly WeightEntry[],
  options: FetchWeightsOptions,
  signal: AbortSignal,
): Promise<FetchedWeights> {
  const wanted = entries.map(readEntry);
  refuseTwice(wanted);
  const dispatcher = options.guard.agent({ connections: limits.weightFetches });
  try {
    return await fetchAll(wanted, options, dispatcher, signal);
  } finally {
    await dispatcher.destroy();
  }
}

async function fetchAll(
  wanted: readonly Wanted[],
  options: FetchWeightsOptions,
  dispatcher: Dispatcher,
  signal: AbortSignal,
): Promise<FetchedWeights> {
  const { clock, guard } = options;
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const gate = new Gate(limits.weightFetches);
  const known = new Map<Wanted, BlobProgress>();
  let doneFiles = 0;
  const tell = (): void => {
    const sum = (of: (progress: BlobProgress) => number): number =>
      [...known.values()].reduce((total, progress) => total + of(progress), 0);
    options.progress?.({
      doneBytes: sum(({ doneBytes }) => doneBytes),
      totalBytes: sum(({ doneBytes, totalBytes }) => totalBytes ?? doneBytes),
      doneFiles,
      totalFiles: wanted.length,
    });
  };
  const pins: Pin[] = [];
  const work = wanted.map(async (one): Promise<[FileMount, number]> => {
    try {
      const origin = new HttpsOrigin({ url: one.url, dispatcher, clock, guard });
      const progress = (now: BlobProgress): void => {
        known.set(one, now);
        tell();
      };
      const blob = await gate.through(
        () => fetchOne(one, origin, options, progress, pins, both),
        both,
      );
      doneFiles += 1;
      known.set(one, { doneBytes: blob.sizeBytes, totalBytes: blob.sizeBytes });
      tell();
      const source = options.store.path(blob.digest);
      const mount: FileMount = { source, target: one.target, readOnly: true };
      return [mount, blob.source === 'local' ? 0 : blob.sizeBytes];
    } catch (error) {
      stop.abort(named(error, one));
      throw error;
    }
  });
  const ends = await Promise.allSettled(work);
  const done = ends.flatMap((end) => (end.status === 'fulfilled' ? [end.value] : []));
  if (done.length < wanted.length) {
    joinPins(pins).release();
    signal.throwIfAborted();
    throw stop.signal.reason;
  }
  return {
    files: done.map(([mount]) => mount),
    pin: joinPins(pins),
    pulledBytes: done.reduce((sum, [, bytes]) => sum + bytes, 0),
  };
}

async function fetchOne(
  { url, digest }: Wanted,
  origin: HttpsOrigin,
  { store, fetcher, aliases }: FetchWeightsOptions,
  progress: (progress: BlobProgress) => void,
  pins: Pin[],
  signal: AbortSignal,
): Promise<FetchedBlob> {
  const maxBytes = limits.weightBytes;
  if (digest !== undefined) {
    pins.push(store.pin(digest));
    return fetcher.fetch({ digest, maxBytes, origin, progress }, signal);
  }
  // The URL may carry a signature: only its hash is kept.
  const etag = await origin.etag(signal);
  const alias = etag === undefined ? undefined : `${digestOf(url)} ${etag}`;
  const known = alias === undefined ? undefined : await aliases.get(alias);
  if (known !== undefined && store.has(known)) {
    pins.push(store.pin(known));
    return fetcher.fetch({ digest: known, origin, progress }, signal);
  }
  const key = `${digestOf(url)} ${etag ?? ''}`;
  const fetched = await fetcher.fetch({ key, maxBytes, origin, progress }, signal);
  pins.push(store.pin(fetched.digest));
  // It may have changed between the two questions: then the alias would be a lie.
  if (alias !== undefined && (await origin.etag(signal)) === etag)
    await aliases.set(alias, fetched.digest);
  return fetched;
}

function readEntry({ from, sha256, to }: WeightEntry, at: number): Wanted {
  const field = `weights.${at}`;
  const refuse = (
    code: 'INPUT_INVALID' | 'NOT_SUPPORTED',
    part: string,
    problem: string,
  ): never => {
    throw new Failure(code, `${field}.${part}: ${problem}`, {
      detail: { field: `${field}.${part}` },
    });
  };
  const scheme = /^([a-z0-9]+):\/\//i.exec(from)?.[1]?.toLowerCase();
  if (scheme === 'hf' || scheme === 's3')
    refuse('NOT_SUPPORTED', 'from', `${scheme}:// is not there yet; use https://`);
  if (scheme !== 'https' && scheme !== 'http')
    refuse('INPUT_INVALID', 'from', 'is no https:// URL');
  const digest = sha256 === undefined ? undefined : `sha256:${sha256}`;
  if (digest !== undefined && !isDigest(digest))
    return refuse('INPUT_INVALID', 'sha256', 'expected 64 lowercase hex digits');
  if (!to.startsWith('/') || to.includes('\0') || to.split('/').includes('..'))
    refuse('INPUT_INVALID', 'to', 'expected an absolute path without ..');
  if (!to.endsWith('/')) return { url: from, digest, target: to, field };
  const name = fileName(from);
  if (name === undefined) return refuse('INPUT_INVALID', 'to', 'the URL has no file name; add one');
  return { url: from, digest, target: `${to}${name}`, field };
}

function fileName(url: string): string | undefined {
  if (!URL.canParse(url)) return undefined;
  try {
    const name = decodeURIComponent(new URL(url).pathname.split('/').at(-1) ?? '');
    const isName = name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name);
    return isName ? name : undefined;
  } catch {
    return undefined;
  }
}

function refuseTwice(wanted: readonly Wanted[]): void {
  const seen = new Set<string>();
  for (const { target, field } of wanted) {
    const place = target.replace(/\/+/g, '/');
    if (seen.has(place))
      throw new Failure('INPUT_INVALID', `${field}.to: ${place} is named twice`, {
        detail: { field: `${field}.to` },
      });
    seen.add(place);
  }
}

/** A failure that says which entry it was. */
function named(thrown: unknown, { field }: Wanted): unknown {
  if (!(thrown instanceof Failure)) return thrown;
  return new Failure(thrown.code, `${field}: ${thrown.message}`, {
    detail: { ...thrown.detail, field },
    cause: thrown.cause,
  });
}
