// How a record becomes a value: one version byte, a CRC-32 over the rest, msgpack. LevelDB as it is built for Node does
// not verify what it reads (survival M6), so every read checks here: a flipped bit is a coded failure, never a wrong
// answer.
import { Packr, Unpackr } from 'msgpackr';
import { crc32 } from 'node:zlib';
import { Failure } from '../../shared/failure.ts';

const VERSION = 1;
const HEAD_BYTES = 5;
const packr = new Packr({ useRecords: false, variableMapSize: true });
const unpackr = new Unpackr({ useRecords: false, int64AsType: 'number', mapsAsObjects: true });

/** Plain data or bytes as a value. */
export function encodeValue(value: unknown): Uint8Array {
  const body = packr.pack(value);
  const bytes = new Uint8Array(HEAD_BYTES + body.byteLength);
  bytes[0] = VERSION;
  new DataView(bytes.buffer).setUint32(1, crc32(body));
  bytes.set(body, HEAD_BYTES);
  return bytes;
}

/**
 * @param key named in the failure
 * @throws Failure STORE_CORRUPT, STORE_TOO_NEW
 */
export function decodeValue(key: string, bytes: Uint8Array): unknown {
  const version = bytes[0];
  if (version !== undefined && version > VERSION)
    throw new Failure(
      'STORE_TOO_NEW',
      `record ${key} has version ${version}, this program knows ${VERSION}`,
    );
  const body = bytes.subarray(HEAD_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (version !== VERSION || bytes.byteLength <= HEAD_BYTES || view.getUint32(1) !== crc32(body))
    throw new Failure('STORE_CORRUPT', `record ${key} fails its checksum`, { detail: { key } });
  return unpackr.unpack(body);
}
