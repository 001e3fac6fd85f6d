// One archive file into one empty folder: decompress, hash, read, write. Runs where it is called; unpack-thread.ts calls
// it in a thread. The hash is over everything that the decompressor gives, also what the tar reader does not look at:
// that is what a diff id is.
import { statSync, statfsSync } from 'node:fs';
import { Hashing, type Digest } from '../../shared/digest.ts';
import { Failure, systemCode } from '../../shared/failure.ts';
import { bytesOfText } from './byte-path.ts';
import { decompress } from './decompress.ts';
import { LayerTree, type LayerTreeRest } from './layer-tree.ts';
import { readEntry, type EntryPolicy } from './tar-entry.ts';
import { readTar } from './tar-reader.ts';

export interface UnpackJob {
  /** The archive. */
  blobPath: string;
  /** Existing, empty, 0700 above. */
  folder: string;
  policy: EntryPolicy;
  owners: boolean;
  /** Absolute path of a char device 0:0 on the same file system. */
  whiteoutNode?: string;
  /** What the uncompressed bytes must hash to. */
  diffId?: Digest;
  reserveBytes: number;
  maxEntries: number;
  maxBytes: number;
}

export interface UnpackedArchive extends LayerTreeRest {
  diffId: Digest;
  /** Of the uncompressed archive. */
  sizeBytes: number;
}

/** How often the free space is looked at. */
const LOOK_EVERY_BYTES = 64 * 1024 * 1024;

/** @throws Failure LAYER_INVALID, DISK_FULL, HOST_COMMAND_FAILED */
export async function unpackArchive(job: UnpackJob): Promise<UnpackedArchive> {
  const hashing = new Hashing();
  const { bytes, maxBytes } = decompress(job.blobPath, statSync(job.blobPath).size);
  const tree = new LayerTree({
    root: bytesOfText(job.folder),
    owners: job.owners,
    ...(job.whiteoutNode === undefined ? {} : { whiteoutNode: bytesOfText(job.whiteoutNode) }),
  });
  const most = Math.min(maxBytes, job.maxBytes);
  try {
    await readTar(checked(bytes, hashing, most, job), {
      onEntry: (header) => tree.apply(readEntry(header, job.policy)),
      maxEntries: job.maxEntries,
    });
    const rest = tree.finish();
    const diffId = hashing.digest();
    if (job.diffId !== undefined && diffId !== job.diffId)
      throw new Failure(
        'LAYER_INVALID',
        `the layer unpacks to ${diffId}, its image says ${job.diffId}`,
      );
    return { ...rest, diffId, sizeBytes: hashing.sizeBytes };
  } catch (error) {
    throw unpackFailure(error);
  }
}

/** Hashes and measures what streams past. */
async function* checked(
  bytes: AsyncIterable<Buffer>,
  hashing: Hashing,
  maxBytes: number,
  job: UnpackJob,
): AsyncGenerator<Buffer> {
  let lookAt = 0;
  for await (const chunk of bytes) {
    hashing.update(chunk);
    if (hashing.sizeBytes > maxBytes)
      throw new Failure('LAYER_INVALID', `the archive unpacks to more than ${maxBytes} bytes`);
    if (hashing.sizeBytes >= lookAt) {
      lookAt = hashing.sizeBytes + LOOK_EVERY_BYTES;
      const { bavail, bsize } = statfsSync(job.folder);
      if (bavail * bsize < job.reserveBytes)
        throw new Failure('DISK_FULL', `only ${bavail * bsize} bytes are free for a layer`);
    }
    yield chunk;
  }
}

function unpackFailure(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown;
  const code = systemCode(thrown) ?? '';
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new Failure('DISK_FULL', 'no space left for a layer', { cause: thrown });
  if (/^Z_|^ZSTD_|^ERR_.*(?:ZLIB|ZSTD)/.test(code))
    return new Failure('LAYER_INVALID', `the blob cannot be decompressed: ${message}`, {
      cause: thrown,
    });
  if (['ENAMETOOLONG', 'EINVAL', 'EILSEQ', 'ELOOP', 'EMLINK'].includes(code))
    return new Failure('LAYER_INVALID', `the file system refuses an entry: ${message}`, {
      cause: thrown,
    });
  return new Failure('HOST_COMMAND_FAILED', `unpacking failed: ${message}`, { cause: thrown });
}
