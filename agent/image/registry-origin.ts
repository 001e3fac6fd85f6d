// A repository of a registry as an origin: of blobs by digest, or of manifests by digest.
import { Readable } from 'node:stream';
import { Failure } from '../../shared/failure.ts';
import { parseManifest } from '../../shared/registry/manifest.ts';
import type { RegistryClient } from '../../shared/registry/registry-client.ts';
import type { BlobRequest, BlobStream, Origin } from '../content/origin.ts';

export class RegistryOrigin implements Origin {
  readonly name: string;
  readonly #client: RegistryClient;
  readonly #repository: string;
  readonly #what: 'blobs' | 'manifests';

  /** The client belongs to whoever made it. */
  constructor(client: RegistryClient, repository: string, what: 'blobs' | 'manifests') {
    this.#client = client;
    this.#repository = repository;
    this.#what = what;
    this.name = `${client.base.host}/${repository}`;
  }

  /** @throws Failure IMAGE_NOT_FOUND, IMAGE_INVALID, DIGEST_MISMATCH, REGISTRY_* */
  async open(request: BlobRequest, signal: AbortSignal): Promise<BlobStream> {
    const { digest, offset = 0 } = request;
    if (digest === undefined)
      throw new Failure('INPUT_INVALID', `${this.name} gives blobs by digest only`);
    if (this.#what === 'manifests') {
      const manifest = await this.#client.manifest(this.#repository, digest, signal);
      // What is no image is refused before it is kept.
      parseManifest(manifest.body, `${this.name}@${digest}`, manifest.contentType);
      const { body } = manifest;
      return { stream: Readable.from([body]), offset: 0, sizeBytes: body.byteLength };
    }
    const { answer, ...opened } = await this.#client.blob(this.#repository, digest, offset, signal);
    return { stream: answer.body, ...opened };
  }
}
