// Gives pieces of blobs to peers. U1: only complete, verified blobs of the store leave (C1). U2: only with a ticket of the
// coordinator, and a blob that is absent looks like one that is not permitted (C5). U3: few uploads at once; who comes on
// top is told to wait (C3).
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream';
import type { ContentStore } from '../content/content-store.ts';
import { isDigest } from '../../shared/digest.ts';
import { limits } from '../../shared/limits.ts';
import { answer } from './direct-call.ts';
import type { LeaseBook } from './lease-book.ts';

/** About the time of one piece at a gigabit. */
const RETRY_AFTER_MS = 50;

export interface BlobUploadsParts {
  blobs: Pick<ContentStore, 'sizeOf' | 'open'>;
  leases: Pick<LeaseBook, 'mayRead'>;
  uploadsAtOnce?: number;
}

export class BlobUploads {
  readonly #parts: BlobUploadsParts;
  #open = 0;

  constructor(parts: BlobUploadsParts) {
    this.#parts = parts;
  }

  /** @param name what follows `/blobs/` */
  serve(name: string, request: IncomingMessage, response: ServerResponse): void {
    const { blobs, leases, uploadsAtOnce = limits.peerUploads } = this.#parts;
    if (request.method !== 'GET')
      return answer(response, 405, 'x-runmesh-refused', 'NOT_SUPPORTED', 'only GET');
    const ticket = request.headers['x-runmesh-ticket'];
    const known =
      isDigest(name) && leases.mayRead(typeof ticket === 'string' ? ticket : undefined, name);
    const sizeBytes = known ? blobs.sizeOf(name) : undefined;
    if (!known || sizeBytes === undefined)
      return answer(response, 404, 'x-runmesh-refused', 'NOT_FOUND', 'there is no such blob');
    const range = rangeOf(request.headers.range, sizeBytes);
    if (!range)
      return answer(
        response,
        416,
        'x-runmesh-refused',
        'INPUT_INVALID',
        'ask for one piece by Range',
      );
    if (this.#open >= uploadsAtOnce) {
      response.setHeader('x-runmesh-retry-after-ms', RETRY_AFTER_MS);
      return answer(response, 503, 'x-runmesh-refused', 'SLOTS_FULL', 'all upload slots are taken');
    }
    this.#open += 1;
    response.writeHead(206, {
      'content-type': 'application/octet-stream',
      'content-length': range.end - range.start + 1,
      'content-range': `bytes ${range.start}-${range.end}/${sizeBytes}`,
    });
    pipeline(blobs.open(name, range), response, () => {
      this.#open -= 1;
    });
  }
}

/** One range of at most a piece, inside the blob; `end` is inclusive. */
function rangeOf(
  header: string | undefined,
  sizeBytes: number,
): { start: number; end: number } | undefined {
  const match = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(header ?? '');
  const [start, end] = [Number(match?.[1]), Number(match?.[2])];
  if (!match || start > end || end >= sizeBytes || end - start >= limits.pieceBytes)
    return undefined;
  return { start, end };
}
