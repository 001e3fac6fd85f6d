// Image references: `[host[:port]/]name[:tag][@sha256:…]`, as docker and the OCI distribution spec read them. The
// defaults are docker's (docker.io, library/, latest). Pure; what cannot be read is refused with the problem named.
import { isDigest, type Digest } from './digest.ts';
import { isLoopbackHost } from './host-port.ts';
import { Failure } from './failure.ts';

export interface ImageRef {
  /** Host and port as people write them: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  registry: string;
  /** `library/busybox` */
  repository: string;
  /** Absent when only a digest is named. */
  tag?: string;
  /** When present it wins over the tag. */
  digest?: Digest;
}

/** One spelling each, in lower case; a tag may hold capitals. */
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const HOST =
  /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?$/;
const NAME_LENGTH = 255;
const REF_LENGTH = 1024;

/** @throws Failure IMAGE_REF_INVALID naming the problem */
export function parseImageRef(text: string): ImageRef {
  const refuse = (problem: string): never => {
    const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
    throw new Failure('IMAGE_REF_INVALID', `image ${JSON.stringify(shown)}: ${problem}`, {
      detail: { field: 'image' },
    });
  };
  if (text === '') refuse('is empty');
  if (text.length > REF_LENGTH) refuse(`is longer than ${REF_LENGTH} characters`);
  if (/^[a-z]+:\/\//i.test(text)) refuse('has a scheme; write host/name:tag without https://');
  if (/\s/.test(text)) refuse('holds white space');

  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest))
    return refuse('the digest is not sha256: and 64 lower case hex digits');
  const { named, tag } = cutTag(at < 0 ? text : text.slice(0, at));
  if (tag !== undefined && !TAG.test(tag))
    return refuse(`the tag ${JSON.stringify(tag)} is not allowed`);

  const { registry, path } = cutRegistry(named);
  if (!HOST.test(registry)) return refuse(`the registry ${JSON.stringify(registry)} is no host`);
  if (Number(/:([0-9]+)$/.exec(registry)?.[1] ?? 1) > 65_535) return refuse('no such port');
  const repository = registry === 'docker.io' && !path.includes('/') ? `library/${path}` : path;
  for (const component of path.split('/')) {
    if (component === '') return refuse('a part of the name is empty');
    if (component !== component.toLowerCase()) return refuse('the name must be in lower case');
    if (!COMPONENT.test(component))
      return refuse(`the part ${JSON.stringify(component)} of the name is not allowed`);
  }
  if (repository.length > NAME_LENGTH) return refuse(`the name is over ${NAME_LENGTH} characters`);

  const ref: ImageRef = { registry, repository };
  if (digest !== undefined) ref.digest = digest;
  if (tag !== undefined) ref.tag = tag;
  else if (digest === undefined) ref.tag = 'latest';
  return ref;
}

/** The canonical text; `parseImageRef` reads it back to the same. */
export function formatImageRef(ref: ImageRef): string {
  const tag = ref.tag === undefined ? '' : `:${ref.tag}`;
  const digest = ref.digest === undefined ? '' : `@${ref.digest}`;
  return `${ref.registry}/${ref.repository}${tag}${digest}`;
}

/** The same image, held to `digest`. */
export function pinImageRef(ref: ImageRef, digest: Digest): ImageRef {
  return { ...ref, digest };
}

/** Where the registry's API is. Loopback registries speak http, all others https. */
export function registryBase(registry: string): URL {
  const host = registry === 'docker.io' ? 'registry-1.docker.io' : registry;
  const secure = new URL(`https://${host}/`);
  return isLoopbackHost(secure.hostname) ? new URL(`http://${host}/`) : secure;
}

function cutTag(text: string): { named: string; tag?: string } {
  const colon = text.lastIndexOf(':');
  if (colon < 0 || colon < text.lastIndexOf('/')) return { named: text };
  return { named: text.slice(0, colon), tag: text.slice(colon + 1) };
}

function cutRegistry(named: string): { registry: string; path: string } {
  const slash = named.indexOf('/');
  const first = slash < 0 ? '' : named.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  if (!isHost) return { registry: 'docker.io', path: named };
  const known = ['index.docker.io', 'registry-1.docker.io'];
  const registry = known.includes(first) ? 'docker.io' : first;
  return { registry, path: named.slice(slash + 1) };
}
