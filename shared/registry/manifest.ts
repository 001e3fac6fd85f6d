// Manifests and indexes (image-spec manifest.md, image-index.md; Docker schema 2), read strictly: schema 1 is refused,
// and so is a document that could be taken for both kinds (CVE-2021-41190). Pure.
import { z } from 'zod';
import { isDigest, type Digest } from '../digest.ts';
import { Failure } from '../failure.ts';
import { limits } from '../limits.ts';

export interface Descriptor {
  mediaType: string;
  digest: Digest;
  sizeBytes: number;
}

export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

export interface IndexEntry extends Descriptor {
  /** Absent where the index does not say. */
  platform?: Platform;
}

export type Manifest =
  | { kind: 'index'; entries: readonly IndexEntry[] }
  | { kind: 'manifest'; config: Descriptor; layers: readonly Descriptor[] };

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const INDEX_TYPES: readonly string[] = [OCI_INDEX, DOCKER_LIST];
const IMAGE_TYPES: readonly string[] = [OCI_MANIFEST, DOCKER_MANIFEST];

/** What to accept from a registry. */
export const manifestTypes: readonly string[] = [...INDEX_TYPES, ...IMAGE_TYPES];

const descriptor = z.object({
  mediaType: z.string().max(255),
  digest: z.string().refine(isDigest, 'expected a sha256 digest'),
  size: z.number().int().min(0).max(limits.blobBytes),
});
const entry = descriptor.extend({
  platform: z
    .object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
    .optional(),
  annotations: z.record(z.string(), z.string()).nullish(),
});
const anyDocument = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  manifests: z.array(entry).max(1_000).optional(),
  config: descriptor.optional(),
  layers: z.array(descriptor).max(limits.imageLayers).optional(),
});

/**
 * Reads a manifest or an index. `contentType` is what the registry called it, where one was asked; `shown` names the
 * image for people.
 * @throws Failure IMAGE_INVALID
 */
export function parseManifest(body: Uint8Array, shown: string, contentType?: string): Manifest {
  const refuse = (problem: string): never => {
    throw new Failure('IMAGE_INVALID', `${shown}: ${problem}`, { detail: { image: shown } });
  };
  if (body.byteLength > limits.manifestBytes) refuse('the manifest is over the limit');
  if (contentType?.includes('docker.distribution.manifest.v1'))
    refuse('schema 1 manifests are too old; push it anew');
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body).toString('utf8'));
  } catch {
    refuse('the manifest is not JSON');
  }
  if (typeof json === 'object' && json !== null && 'fsLayers' in json)
    refuse('schema 1 manifests are too old; push it anew');
  const read = anyDocument.safeParse(json);
  if (!read.success) {
    const [issue] = read.error.issues;
    return refuse(`the manifest is wrong at ${issue?.path.join('.') ?? ''}: ${issue?.message}`);
  }
  const { mediaType, manifests, config, layers } = read.data;
  if (manifests && (layers || config)) return refuse('it is an index and a manifest at once');
  const kindTypes = manifests ? INDEX_TYPES : IMAGE_TYPES;
  for (const type of [mediaType, contentType])
    if (type && manifestTypes.includes(type) && !kindTypes.includes(type))
      return refuse(`it is called ${type} and is not`);
  if (mediaType && !manifestTypes.includes(mediaType))
    return refuse(`it is a ${mediaType}, not an image`);
  if (manifests) return { kind: 'index', entries: manifests.filter(isImage).map(entryOf) };
  if (!config || !layers) return refuse('it has neither manifests nor config and layers');
  return { kind: 'manifest', config: descriptorOf(config), layers: layers.map(descriptorOf) };
}

/** The platform of this machine, in OCI's words. */
export function platformOf(architecture: string): Platform {
  const names: Record<string, string> = { x64: 'amd64', arm64: 'arm64' };
  return { os: 'linux', architecture: names[architecture] ?? architecture };
}

/** The entry to run here: the plain variant first; one without a platform only when nothing else fits. */
export function chooseEntry(
  entries: readonly IndexEntry[],
  platform: Platform,
): IndexEntry | undefined {
  const fits = entries.filter(
    ({ platform: of }) => of?.os === platform.os && of.architecture === platform.architecture,
  );
  const plain = (variant: string | undefined): boolean =>
    variant === undefined || variant === '' || variant === 'v1' || variant === 'v8';
  return (
    fits.find(({ platform: of }) => plain(of?.variant)) ??
    fits[0] ??
    entries.find(({ platform: of }) => of === undefined)
  );
}

export function platformText({ os, architecture, variant }: Platform): string {
  return variant ? `${os}/${architecture}/${variant}` : `${os}/${architecture}`;
}

/** Attestations and signatures stand in an index beside the images. */
function isImage({ platform, annotations }: z.output<typeof entry>): boolean {
  return platform?.os !== 'unknown' && !annotations?.['vnd.docker.reference.type'];
}

function descriptorOf({ mediaType, digest, size }: z.output<typeof descriptor>): Descriptor {
  return { mediaType, digest, sizeBytes: size };
}

function entryOf(of: z.output<typeof entry>): IndexEntry {
  if (!of.platform) return descriptorOf(of);
  const { os, architecture, variant } = of.platform;
  const platform = variant === undefined ? { os, architecture } : { os, architecture, variant };
  return { ...descriptorOf(of), platform };
}
