// From an app file to a revision: everything that can be known to be wrong is refused here, by field, before the core
// hears of it. A tag becomes a digest now, so that every runner of the revision has the same image.
import { inactiveFields, type AppSpec } from '../../shared/app-spec.ts';
import { isDigest, type Digest } from '../../shared/digest.ts';
import { asFailure, Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { PayloadStore } from '../payload/payload-store.ts';
import type { CoordinatorPort } from './port.ts';

/** The digest of an image reference, asked of its registry. @throws Failure IMAGE_…, REGISTRY_… */
export type ResolveImage = (ref: string, signal: AbortSignal) => Promise<Digest>;

export interface Deployed {
  app: string;
  revision: string;
  number: number;
  imageDigest?: Digest;
  inactive: string[];
  /** For people: what will not do what they may think. */
  warnings: string[];
}

export interface DeployParts {
  port: Pick<CoordinatorPort, 'ask' | 'query'>;
  payloads: PayloadStore;
  resolveImage: ResolveImage;
  maxApps?: number;
}

export async function deploy(
  parts: DeployParts,
  spec: AppSpec,
  signal: AbortSignal,
): Promise<Deployed> {
  for (const [at, { from }] of spec.weights.entries())
    if (!/^https?:/.test(from))
      throw refused(
        'NOT_SUPPORTED',
        `weights[${at}].from`,
        `${from.slice(0, from.indexOf(':'))}:// weights are not in this version; name https:// files`,
      );
  await checkRoom(parts, spec.app);
  if (spec.image === undefined) await checkDir(parts.payloads, spec);
  const imageDigest =
    spec.image === undefined ? undefined : await resolved(parts.resolveImage, spec.image, signal);
  const answer = await parts.port.ask('deploy', {
    spec,
    ...(imageDigest === undefined ? {} : { imageDigest }),
  });
  return {
    ...answer,
    ...(imageDigest === undefined ? {} : { imageDigest }),
    warnings: warningsOf(spec),
  };
}

/** A new revision of an app that is there always has room. */
async function checkRoom({ port, maxApps = limits.apps }: DeployParts, app: string): Promise<void> {
  if ((await port.query('app', { app })) !== undefined) return;
  const { apps } = await port.query('counts', {});
  if (apps.length >= maxApps)
    throw refused(
      'CONFLICT',
      'app',
      `there are ${apps.length} apps already, the most there may be`,
    );
}

async function resolved(
  resolveImage: ResolveImage,
  ref: string,
  signal: AbortSignal,
): Promise<Digest> {
  try {
    return await resolveImage(ref, signal);
  } catch (thrown) {
    const failure = asFailure(thrown, 'REGISTRY_UNAVAILABLE');
    throw refused(failure.code, 'image', failure.message, failure);
  }
}

async function checkDir(payloads: PayloadStore, spec: AppSpec): Promise<void> {
  const { dir_digest: digest } = spec;
  if (digest === undefined || !isDigest(digest))
    throw refused(
      'INPUT_INVALID',
      'dir_digest',
      'a command app names its packed folder; `runmesh deploy` packs it',
    );
  if (!(await payloads.has(digest)))
    throw refused(
      'INPUT_INVALID',
      'dir_digest',
      `${digest} was not uploaded; PUT /v1/blobs/ first`,
    );
}

function warningsOf(spec: AppSpec): string[] {
  const warnings = inactiveFields(spec).map((field) => `${field}: has no effect in this version`);
  for (const [at, { from, sha256 }] of spec.weights.entries()) {
    if (sha256 === undefined)
      warnings.push(`weights[${at}].sha256: is not given, so what is fetched cannot be checked`);
    if (from.startsWith('http:'))
      warnings.push(`weights[${at}].from: http:// is neither secret nor proven`);
  }
  return warnings;
}

function refused(code: Failure['code'], field: string, problem: string, cause?: Failure): Failure {
  return new Failure(code, `${field}: ${problem}`, { detail: { field }, cause });
}
