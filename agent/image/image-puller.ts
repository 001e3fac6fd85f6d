// An image onto this node, by digest: manifest, config, layers, unpacked. Everything that is there already is not asked
// for again, so an image that is whole here starts without its registry.
//
//   C1, C2  blobs and layers are visible when complete; a broken pull leaves whole ones behind, to be used by the next.
//   C4      what is returned is pinned until the caller disposes of the pin.
//
// Layers are fetched a few at a time, and each is unpacked while the next ones arrive.
import type { Clock } from '../../shared/clock.ts';
import type { Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { formatImageRef, type ImageRef } from '../../shared/image-ref.ts';
import { limits } from '../../shared/limits.ts';
import {
  chooseEntry,
  parseManifest,
  platformText,
  type Descriptor,
  type Platform,
} from '../../shared/registry/manifest.ts';
import { RegistryClient } from '../../shared/registry/registry-client.ts';
import type { RegistryCredentials } from '../../shared/registry/registry-token.ts';
import type { ContentStore } from '../content/content-store.ts';
import type { BlobFetcher } from '../content/fetch-blob.ts';
import { Gate } from '../content/gate.ts';
import type { Origin } from '../content/origin.ts';
import { joinPins, type Pin } from '../content/pins.ts';
import type { Image, ImageLayer } from './image.ts';
import { parseImageConfig } from './image-config.ts';
import type { LayerStore } from './layer-store.ts';
import { RegistryOrigin } from './registry-origin.ts';

export interface PullProgress {
  stage: 'manifest' | 'fetch' | 'unpack' | 'done';
  /** Compressed bytes of the layers that are missing here. */
  doneBytes: number;
  totalBytes: number;
  /** Layers of the image that are unpacked, of all. */
  doneLayers: number;
  totalLayers: number;
}

export interface PullRequest {
  /** Must carry a digest: nodes never ask for tags (F54). */
  ref: ImageRef;
  credentials?: RegistryCredentials;
  progress?: (progress: PullProgress) => void;
}

export interface PulledImage {
  image: Image;
  /** Topmost first, without repetition: what an overlay takes. */
  layerFolders: readonly string[];
  /** Holds manifest, config and layers; disposed of when no runner of the image is left. */
  pin: Pin;
  /** Bytes that came from elsewhere for this pull. */
  pulledBytes: number;
}

export interface ImagePullerOptions {
  store: ContentStore;
  fetcher: BlobFetcher;
  layers: LayerStore;
  clock: Clock;
  /** Of this machine. */
  platform: Platform;
}

/** Where documents come from; absent: only from this node. */
interface Documents {
  shown: string;
  manifests?: Origin;
  blobs?: Origin;
}

interface FoundImage {
  image: Image;
  documents: readonly Digest[];
  pulledBytes: number;
}

export class ImagePuller {
  readonly #options: ImagePullerOptions;

  constructor(options: ImagePullerOptions) {
    this.#options = options;
  }

  /** The image when all of it is here (no pull is needed), pinned; undefined otherwise. Asks nobody. */
  async cached(digest: Digest, signal: AbortSignal): Promise<PulledImage | undefined> {
    try {
      const found = await this.#find(digest, { shown: digest }, signal);
      if (!found.image.layers.every(({ diffId }) => this.#options.layers.has(diffId)))
        return undefined;
      return this.#pulled(found, this.#pin(found));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Failure) return undefined;
      throw error;
    }
  }

  /** @throws Failure IMAGE_*, REGISTRY_*, LAYER_INVALID, DIGEST_MISMATCH, DISK_FULL; the signal's reason */
  async pull(request: PullRequest, signal: AbortSignal): Promise<PulledImage> {
    const { ref, credentials } = request;
    if (ref.digest === undefined)
      throw new Failure('IMAGE_REF_INVALID', `${formatImageRef(ref)} must be pulled by digest`);
    await using client = new RegistryClient({
      registry: ref.registry,
      clock: this.#options.clock,
      ...(credentials ? { credentials } : {}),
    });
    const blobs = new RegistryOrigin(client, ref.repository, 'blobs');
    const manifests = new RegistryOrigin(client, ref.repository, 'manifests');
    const shown = formatImageRef(ref);
    const progress: PullProgress = {
      stage: 'manifest',
      doneBytes: 0,
      totalBytes: 0,
      doneLayers: 0,
      totalLayers: 0,
    };
    request.progress?.({ ...progress });
    const found = await this.#find(ref.digest, { shown, manifests, blobs }, signal);
    const pin = this.#pin(found);
    try {
      const layerBytes = await this.#layers(found.image, blobs, progress, request, signal);
      return this.#pulled({ ...found, pulledBytes: found.pulledBytes + layerBytes }, pin);
    } catch (error) {
      pin.release();
      throw error;
    }
  }

  #pulled({ image, pulledBytes }: FoundImage, pin: Pin): PulledImage {
    // An overlay refuses a folder named twice. The topmost one hides what the same layer shows further down.
    const topmost = new Set(image.layers.map(({ diffId }) => diffId).reverse());
    const layerFolders = [...topmost].map((diffId) => this.#options.layers.path(diffId));
    return { image, layerFolders, pin, pulledBytes };
  }

  #pin({ image, documents }: FoundImage): Pin {
    const { store, layers } = this.#options;
    return joinPins([
      ...documents.map((digest) => store.pin(digest)),
      ...image.layers.map(({ diffId }) => layers.pin(diffId)),
    ]);
  }

  /** From an index or manifest digest to the image for this machine. */
  async #find(digest: Digest, from: Documents, signal: AbortSignal): Promise<FoundImage> {
    const { platform } = this.#options;
    const documents: Digest[] = [];
    let pulledBytes = 0;
    const read = async (
      of: { digest: Digest; sizeBytes?: number },
      origin: Origin | undefined,
    ): Promise<Buffer> => {
      const document = await this.#document(of, origin, signal);
      documents.push(of.digest);
      pulledBytes += document.pulledBytes;
      return document.bytes;
    };
    let wanted: { digest: Digest; sizeBytes?: number } = { digest };
    for (let depth = 0; depth <= limits.manifestDepth; depth += 1) {
      const manifest = parseManifest(await read(wanted, from.manifests), from.shown);
      if (manifest.kind === 'manifest') {
        const config = await read(manifest.config, from.blobs);
        const parsed = parseImageConfig(config, platform, from.shown);
        const layers = joinLayers(manifest.layers, parsed.diffIds, from.shown);
        const image = { digest: wanted.digest, config: parsed.config, layers };
        return { image, documents, pulledBytes };
      }
      const entry = chooseEntry(manifest.entries, platform);
      if (!entry)
        throw new Failure(
          'IMAGE_NO_PLATFORM',
          `${from.shown} has no image for ${platformText(platform)}; it has ` +
            (manifest.entries.map((e) => e.platform && platformText(e.platform)).join(', ') ||
              'none'),
        );
      wanted = entry;
    }
    throw new Failure(
      'IMAGE_INVALID',
      `${from.shown}: indexes are nested more than ${limits.manifestDepth} deep`,
    );
  }

  /** A manifest or config, from the store or through it; one that changed on disk is dropped and fetched again. */
  async #document(
    { digest, sizeBytes }: { digest: Digest; sizeBytes?: number },
    origin: Origin | undefined,
    signal: AbortSignal,
  ): Promise<{ bytes: Buffer; pulledBytes: number }> {
    const { store, fetcher } = this.#options;
    const maxBytes = limits.manifestBytes;
    if (store.has(digest)) {
      try {
        return { bytes: await store.read(digest, maxBytes), pulledBytes: 0 };
      } catch (error) {
        if (store.isPinned(digest) || !origin) throw error;
        await store.remove(digest);
      }
    }
    if (!origin) throw new Failure('NOT_FOUND', `blob ${digest} is not on this node`);
    if (sizeBytes !== undefined && sizeBytes > maxBytes)
      throw new Failure('IMAGE_INVALID', `${origin.name}: ${digest} is over ${maxBytes} bytes`);
    using _ = store.pin(digest);
    const size = sizeBytes === undefined ? {} : { sizeBytes };
    const fetched = await fetcher.fetch({ digest, ...size, maxBytes, origin }, signal);
    return {
      bytes: await store.read(digest, maxBytes),
      pulledBytes: fetched.source === 'local' ? 0 : fetched.sizeBytes,
    };
  }

  /** Fetches and unpacks what is missing; returns the bytes fetched. One failure ends the others. */
  async #layers(
    image: Image,
    origin: Origin,
    progress: PullProgress,
    request: PullRequest,
    signal: AbortSignal,
  ): Promise<number> {
    const { layers } = this.#options;
    const missing = new Map<Digest, ImageLayer>();
    for (const layer of image.layers)
      if (!layers.has(layer.diffId)) missing.set(layer.diffId, layer);
    const done = new Map<Digest, number>();
    const all = new Set(image.layers.map(({ diffId }) => diffId));
    progress.totalLayers = all.size;
    progress.totalBytes = [...missing.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    let unpacked = all.size - missing.size;
    const tell = (): void => {
      progress.doneLayers = unpacked;
      progress.doneBytes = [...done.values()].reduce((sum, bytes) => sum + bytes, 0);
      const isFetched = progress.doneBytes >= progress.totalBytes;
      progress.stage = unpacked === all.size ? 'done' : isFetched ? 'unpack' : 'fetch';
      request.progress?.({ ...progress });
    };
    tell();
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    const gate = new Gate(limits.layerFetches);
    let pulledBytes = 0;
    const work = [...missing.values()].map(async (layer) => {
      try {
        pulledBytes += await this.#layer(layer, origin, gate, both, (bytes) => {
          done.set(layer.diffId, bytes);
          tell();
        });
        unpacked += 1;
        tell();
      } catch (error) {
        stop.abort(error);
        throw error;
      }
    });
    const ends = await Promise.allSettled(work);
    signal.throwIfAborted();
    // The first failure is the reason of the others.
    if (ends.some(({ status }) => status === 'rejected')) throw stop.signal.reason;
    return pulledBytes;
  }

  /** One layer. A blob that was here and has changed on disk since is dropped and fetched again (F48). */
  async #layer(
    layer: ImageLayer,
    origin: Origin,
    gate: Gate,
    signal: AbortSignal,
    tell: (doneBytes: number) => void,
  ): Promise<number> {
    const { store, fetcher, layers } = this.#options;
    const { digest, sizeBytes, diffId } = layer;
    const progress = ({ doneBytes }: { doneBytes: number }): void => tell(doneBytes);
    for (;;) {
      using pin = store.pin(digest);
      const fetched = await gate.through(
        () => fetcher.fetch({ digest, sizeBytes, origin, progress }, signal),
        signal,
      );
      const isLocal = fetched.source === 'local';
      try {
        await layers.unpack(diffId, store.path(digest), signal);
        return isLocal ? 0 : fetched.sizeBytes;
      } catch (error) {
        const mayBeRot = isLocal && error instanceof Failure && error.code === 'LAYER_INVALID';
        if (!mayBeRot || (await store.verify(digest, signal))) throw error;
        pin.release();
        await store.remove(digest);
      }
    }
  }
}

function joinLayers(
  descriptors: readonly Descriptor[],
  diffIds: readonly Digest[],
  shown: string,
): ImageLayer[] {
  if (descriptors.length !== diffIds.length)
    throw new Failure(
      'IMAGE_INVALID',
      `${shown} has ${descriptors.length} layers and ${diffIds.length} diff ids`,
    );
  return descriptors.map(({ digest, sizeBytes }, at) => {
    const diffId = diffIds[at];
    if (diffId === undefined) throw new Failure('IMAGE_INVALID', `${shown} lacks a diff id`);
    return { digest, sizeBytes, diffId };
  });
}
