// The tar inside a blob. The form is told by its first bytes, not by its media type (builders get that wrong): gzip with
// any number of members, zstd with any number of frames, or plain tar.
import { closeSync, createReadStream, openSync, readSync } from 'node:fs';
import { pipeline } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { limits } from '../../shared/limits.ts';

export type Compression = 'gzip' | 'zstd' | 'none';

/** Zlib hands out 16 KiB a time unless told; that costs a third of its speed. */
const CHUNK_BYTES = 1 << 20;
const SLACK_BYTES = 1 << 20;

/** @param first at least the first four bytes */
export function compressionOf(first: Uint8Array): Compression {
  const [a, b, c, d] = first;
  if (a === 0x1f && b === 0x8b) return 'gzip';
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return 'zstd';
  // A skippable frame may come first: 0x184D2A50 to 0x184D2A5F, little endian.
  if (a !== undefined && (a & 0xf0) === 0x50 && b === 0x2a && c === 0x4d && d === 0x18)
    return 'zstd';
  return 'none';
}

/** The uncompressed bytes of a file, and the most that an honest one of its size can have. */
export function decompress(
  path: string,
  sizeBytes: number,
): { bytes: AsyncIterable<Buffer>; compression: Compression; maxBytes: number } {
  const first = Buffer.alloc(4);
  const fd = openSync(path, 'r');
  try {
    readSync(fd, first, 0, 4, 0);
  } finally {
    closeSync(fd);
  }
  const compression = compressionOf(first);
  const file = createReadStream(path, { highWaterMark: CHUNK_BYTES });
  if (compression === 'none') return { bytes: file, compression, maxBytes: sizeBytes };
  const options = { chunkSize: CHUNK_BYTES };
  const opened = compression === 'gzip' ? createGunzip(options) : createZstdDecompress(options);
  // Its error reaches whoever iterates.
  pipeline(file, opened, () => undefined);
  const maxBytes =
    compression === 'gzip' ? sizeBytes * limits.layerRatio + SLACK_BYTES : limits.layerBytes;
  return { bytes: opened, compression, maxBytes: Math.min(maxBytes, limits.layerBytes) };
}
