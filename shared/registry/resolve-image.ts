// What a reference points to now: the digest that a revision pins at deploy (F54), so that no node ever asks for a tag.
// One GET, checked and read, so that an image that cannot be used is refused while somebody looks.
import type { Clock } from '../clock.ts';
import type { Digest } from '../digest.ts';
import { Failure } from '../failure.ts';
import { formatImageRef, parseImageRef, pinImageRef, type ImageRef } from '../image-ref.ts';
import { parseManifest, platformText } from './manifest.ts';
import { RegistryClient } from './registry-client.ts';
import type { RegistryCredentials } from './registry-token.ts';

export interface ResolvedImage {
  /** The reference with its digest: what an agent is told to pull. */
  ref: ImageRef;
  /** `ref` as text. */
  text: string;
  /** Of the index or the manifest, whichever the tag names. */
  digest: Digest;
  kind: 'index' | 'manifest';
  /** `linux/amd64`…, of an index that says so; empty for a single manifest. */
  platforms: readonly string[];
  /** Compressed layers together; known for a single manifest only. */
  sizeBytes?: number;
}

export interface ResolveOptions {
  clock: Clock;
  credentials?: RegistryCredentials;
  signal: AbortSignal;
}

/**
 * Asks the registry once; nothing is cached and nothing retried, because a person waits.
 * @throws Failure IMAGE_REF_INVALID, IMAGE_NOT_FOUND, IMAGE_INVALID, IMAGE_NO_PLATFORM, REGISTRY_*; each names the image
 */
export async function resolveImage(
  image: string | ImageRef,
  options: ResolveOptions,
): Promise<ResolvedImage> {
  const ref = typeof image === 'string' ? parseImageRef(image) : image;
  await using client = new RegistryClient({
    registry: ref.registry,
    clock: options.clock,
    ...(options.credentials ? { credentials: options.credentials } : {}),
  });
  const reference = ref.digest ?? ref.tag ?? 'latest';
  const { digest, contentType, body } = await client.manifest(
    ref.repository,
    reference,
    options.signal,
  );
  const shown = formatImageRef(ref);
  const manifest = parseManifest(body, shown, contentType);
  const pinned = pinImageRef(ref, digest);
  const base = { ref: pinned, text: formatImageRef(pinned), digest };
  if (manifest.kind === 'manifest') {
    const sizeBytes = manifest.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
    return { ...base, kind: 'manifest', platforms: [], sizeBytes };
  }
  if (manifest.entries.length === 0)
    throw new Failure('IMAGE_NO_PLATFORM', `${shown}: the index holds no image`);
  const platforms = manifest.entries.flatMap(({ platform }) =>
    platform ? [platformText(platform)] : [],
  );
  return { ...base, kind: 'index', platforms };
}
