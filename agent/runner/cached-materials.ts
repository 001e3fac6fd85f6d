// What runners are made of, from this node's cache: images unpacked by layer, packed folders, weights. Which images are
// whole here is remembered in `images.json`, and checked against the cache at the start.
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { Clock } from '../../shared/clock.ts';
import { isDigest, type Digest } from '../../shared/digest.ts';
import { asFailure } from '../../shared/failure.ts';
import { parseImageRef, pinImageRef } from '../../shared/image-ref.ts';
import type { Log } from '../../shared/log.ts';
import type { Body } from '../../shared/protocol.ts';
import type { Pin } from '../content/pins.ts';
import { writeDurably } from '../../shared/durable-file.ts';
import type { ImagePuller, PulledImage } from '../image/image-puller.ts';
import type { FetchedWeights, WeightsProgress } from '../weights/fetch-weights.ts';
import type { FileMount, RunnerSource } from './driver.ts';
import type { Material, Materials, Progress } from './materials.ts';

type Order = Body<'startRunner'>;
type Source = Order['source'];
type FolderSource = Extract<Source, { kind: 'process' }>;
type Tell = (progress: Progress) => void;

export interface CachedMaterialsParts {
  puller: ImagePuller;
  /** Packed folders of `dir:` apps, unpacked. */
  folders: {
    has(source: FolderSource): boolean;
    fetch(
      source: FolderSource,
      progress: (doneBytes: number) => void,
      signal: AbortSignal,
    ): Promise<{ folder: string; pin: Pin }>;
  };
  weights(
    entries: Order['weights'],
    progress: (progress: WeightsProgress) => void,
    signal: AbortSignal,
  ): Promise<FetchedWeights>;
  clock: Clock;
  log: Log;
  /** Path of `images.json`. */
  record: string;
  /** An image came into the cache. */
  imagesChanged(): void;
  /** Counts pulls. */
  pulled(outcome: 'done' | 'failed'): void;
}

export class CachedMaterials implements Materials {
  readonly #parts: CachedMaterialsParts;
  readonly #images = new Set<Digest>();

  constructor(parts: CachedMaterialsParts) {
    this.#parts = parts;
  }

  /** Reads which images were whole, and asks the cache whether they still are. */
  async open(signal: AbortSignal): Promise<void> {
    const text = await readFile(this.#parts.record, 'utf8').catch(() => '[]');
    for (const digest of digestsOf(text)) {
      const found = await this.#parts.puller.cached(digest, signal);
      found?.pin.release();
      if (found) this.#images.add(digest);
    }
  }

  images(): readonly Digest[] {
    return [...this.#images];
  }

  async isCached(source: Source, signal: AbortSignal): Promise<boolean> {
    if (source.kind === 'process') return this.#parts.folders.has(source);
    const found = await this.#parts.puller.cached(source.digest, signal);
    found?.pin.release();
    return found !== undefined;
  }

  source(order: Order, tell: Tell, signal: AbortSignal): Promise<Material<RunnerSource>> {
    const { source } = order;
    return source.kind === 'image'
      ? this.#image(source, tell, signal)
      : this.#folder(source, tell, signal);
  }

  async weights(
    order: Order,
    tell: Tell,
    signal: AbortSignal,
  ): Promise<Material<readonly FileMount[]>> {
    if (order.weights.length === 0) return { value: [], release: async () => undefined };
    const { clock, log } = this.#parts;
    const fromMs = clock.elapsed();
    // What is here counts as done at once: only what is missing is worth telling.
    const progress = ({ doneBytes, totalBytes }: WeightsProgress): void => {
      if (doneBytes < totalBytes) tell({ what: 'weights', doneBytes, totalBytes });
    };
    const { files, pin, pulledBytes } = await this.#parts.weights(order.weights, progress, signal);
    log.event('weights.finished', {
      app: order.app,
      runner: order.runnerId,
      files: files.length,
      pulledBytes,
      durationMs: Math.round(clock.elapsed() - fromMs),
    });
    return { value: files, release: async () => pin.release() };
  }

  async #image(
    source: Extract<Source, { kind: 'image' }>,
    tell: Tell,
    signal: AbortSignal,
  ): Promise<Material<RunnerSource>> {
    const { puller } = this.#parts;
    const pulled =
      (await puller.cached(source.digest, signal)) ?? (await this.#pull(source, tell, signal));
    if (!this.#images.has(source.digest)) await this.#remember(source.digest);
    const { image, layerFolders, pin } = pulled;
    const { command } = source;
    const value = { kind: 'image' as const, image, layerFolders, ...(command ? { command } : {}) };
    return { value, release: async () => pin.release() };
  }

  async #pull(
    source: Extract<Source, { kind: 'image' }>,
    tell: Tell,
    signal: AbortSignal,
  ): Promise<PulledImage> {
    const { puller, clock, log } = this.#parts;
    const fromMs = clock.elapsed();
    const ref = pinImageRef(parseImageRef(source.ref), source.digest);
    const said = { image: source.ref, digest: source.digest };
    try {
      const pulled = await puller.pull(
        {
          ref,
          progress: ({ stage, doneBytes, totalBytes, doneLayers, totalLayers }) => {
            const what =
              totalLayers === 0 ? stage : `${stage}, ${doneLayers} of ${totalLayers} layers`;
            tell({ what, doneBytes, ...(totalBytes > 0 ? { totalBytes } : {}) });
          },
        },
        signal,
      );
      this.#parts.pulled('done');
      log.event('pull.finished', {
        ...said,
        layers: pulled.image.layers.length,
        pulledBytes: pulled.pulledBytes,
        durationMs: Math.round(clock.elapsed() - fromMs),
      });
      return pulled;
    } catch (thrown) {
      this.#parts.pulled('failed');
      const { code, message } = asFailure(thrown);
      const durationMs = Math.round(clock.elapsed() - fromMs);
      log.event('pull.finished', { ...said, code, reason: message, durationMs });
      throw thrown;
    }
  }

  async #folder(
    source: FolderSource,
    tell: Tell,
    signal: AbortSignal,
  ): Promise<Material<RunnerSource>> {
    const totalBytes = source.sizeBytes;
    const { folder, pin } = await this.#parts.folders.fetch(
      source,
      (doneBytes) => {
        if (doneBytes < totalBytes) tell({ what: 'folder', doneBytes, totalBytes });
      },
      signal,
    );
    const value = { kind: 'process' as const, folder, command: source.command };
    return { value, release: async () => pin.release() };
  }

  /** Losing this record costs nothing but a hint to placement. */
  async #remember(digest: Digest): Promise<void> {
    this.#images.add(digest);
    this.#parts.imagesChanged();
    await writeDurably(this.#parts.record, JSON.stringify([...this.#images])).catch(
      (thrown: unknown) =>
        this.#parts.log.warn('the list of images cannot be kept', {
          reason: asFailure(thrown).message,
        }),
    );
  }
}

function digestsOf(text: string): Digest[] {
  try {
    return z
      .array(z.string().refine((value): value is Digest => isDigest(value)))
      .parse(JSON.parse(text));
  } catch {
    return [];
  }
}
