// Reads a tar as a sequence of entries, on tar-stream. What tar-stream leaves open is closed here:
//   - names and PAX values stay bytes (latin1): it decodes PAX as UTF-8, which breaks `security.capability`;
//   - global PAX headers are ignored, as Go's archive/tar (docker, containerd) does;
//   - PAX records are parsed strictly; `mtime`, `uid`, `gid` are left to tar-entry.ts;
//   - nothing may follow the end-of-archive blocks: others would not see it;
//   - a directory with a size has no body, and an archive that ends inside an entry is an error, not a silence;
//   - only the padding behind the last body may be missing: umoci leaves it out, and Go's archive/tar does not mind.
import assert from 'node:assert/strict';
import { extract, type Extract, type Header } from 'tar-stream';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { TarHeader } from './tar-entry.ts';

/** Takes the bytes of one file. Both may throw. */
export interface ContentSink {
  write(bytes: Uint8Array): void;
  end(): void;
}

export interface TarReaderOptions {
  /** Called for each entry, in order; for a file it may return where its bytes go. May throw. */
  onEntry(header: TarHeader): ContentSink | undefined;
  maxEntries?: number;
  maxPaxBytes?: number;
}

/** The parts of tar-stream 3.2 that are reached into, because there is no other way to a PAX record's bytes. */
interface TarStreamInside {
  _header: { type: string | null };
  _pax: Record<string, string> | null;
  _decodeLongHeader: (this: TarStreamInside, bytes: Buffer) => void;
}

type RawHeaders = Omit<Header, 'type' | 'linkname' | 'pax'> & {
  type: string | null;
  linkname: string | null;
  byteOffset: number;
  pax: Record<string, string> | null;
};

/** Options that tar-stream's own types lack, beside one that they have. */
const OPTIONS = { filenameEncoding: 'latin1', allowUnknownFormat: true, highWaterMark: 1 << 20 };

const BLOCK = 512;
const blocks = (sizeBytes: number): number => Math.ceil(sizeBytes / BLOCK) * BLOCK;

/** @throws Failure LAYER_INVALID; whatever `onEntry`, a sink or the source throws */
export async function readTar(
  source: AsyncIterable<Uint8Array>,
  options: TarReaderOptions,
): Promise<void> {
  const reader = extract(OPTIONS);
  const frame: Frame = { headerAt: 0, bodyEnd: 0, longBytes: 0, entries: 0 };
  keepPaxBytes(reader, options.maxPaxBytes ?? limits.layerPaxBytes, (sizeBytes) => {
    frame.longBytes += BLOCK + blocks(sizeBytes);
  });
  const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
  ended.catch(() => undefined);
  reader.on('finish', () => resolve());
  reader.on('error', (error: unknown) => reject(tarFailure(error)));
  reader.on('close', () => reject(invalid('the archive ends in the middle of an entry')));
  const fail = (thrown: unknown): void => {
    reject(thrown);
    reader.destroy();
  };
  reader.on('entry', (headers, body, next) => {
    try {
      const raw = headers as RawHeaders;
      checkFrame(frame, raw, options.maxEntries ?? limits.layerEntries);
      const sink = options.onEntry(headerOf(raw));
      const hasBody = raw.type !== 'directory' && raw.size > 0;
      if (!hasBody) {
        sink?.end();
        return next();
      }
      body.on('error', () => undefined);
      body.on('data', (bytes) => attempt(fail, () => sink?.write(bytes as Uint8Array)));
      body.on('end', () =>
        attempt(fail, () => {
          sink?.end();
          next();
        }),
      );
    } catch (error) {
      fail(error);
    }
  });
  let total = 0;
  for await (const bytes of source) {
    total += bytes.byteLength;
    if (!reader.write(bytes)) await Promise.race([drained(reader), ended]);
  }
  if (total >= frame.bodyEnd && total < frame.headerAt)
    reader.write(Buffer.alloc(frame.headerAt - total));
  reader.end(undefined);
  await ended;
}

function attempt(fail: (thrown: unknown) => void, work: () => void): void {
  try {
    work();
  } catch (error) {
    fail(error);
  }
}

function drained(reader: Extract): Promise<void> {
  return new Promise((resolve) => reader.once('drain', resolve));
}

/** Where the reader stands. */
interface Frame {
  /** Where the next header must begin, and where the last body ends before its padding. */
  headerAt: number;
  bodyEnd: number;
  longBytes: number;
  entries: number;
}

/** Counts entries, and refuses what stands behind end-of-archive blocks. */
function checkFrame(frame: Frame, raw: RawHeaders, maxEntries: number): void {
  frame.entries += 1;
  if (frame.entries > maxEntries) throw invalid(`more than ${maxEntries} entries`);
  if (raw.byteOffset - BLOCK > frame.headerAt + frame.longBytes)
    throw invalid('entries follow the end of the archive');
  const bodyBytes = raw.type === 'directory' ? 0 : raw.size;
  frame.bodyEnd = raw.byteOffset + bodyBytes;
  frame.headerAt = raw.byteOffset + blocks(bodyBytes);
  frame.longBytes = 0;
}

function headerOf(raw: RawHeaders): TarHeader {
  const { name, type, linkname, mode, uid, gid, devmajor, devminor } = raw;
  return {
    name,
    type,
    linkname,
    sizeBytes: raw.size,
    mode,
    uid,
    gid,
    mtime: raw.mtime.getTime() / 1000,
    devmajor,
    devminor,
    pax: raw.pax ?? {},
  };
}

function keepPaxBytes(
  reader: Extract,
  maxBytes: number,
  onLongHeader: (sizeBytes: number) => void,
): void {
  const inside = reader as Extract & TarStreamInside;
  const original = inside._decodeLongHeader;
  assert(typeof original === 'function', 'tar-stream changed inside: see tar-reader.ts');
  inside._decodeLongHeader = function decode(bytes): void {
    onLongHeader(bytes.byteLength);
    if (bytes.byteLength > maxBytes) throw invalid(`a header is over ${maxBytes} bytes`);
    if (this._header.type === 'pax-header') this._pax = readPax(bytes);
    else if (this._header.type !== 'pax-global-header') original.call(this, bytes);
  };
}

/** Records `<length> <key>=<value>\n`, values as bytes. @throws Failure LAYER_INVALID */
export function readPax(bytes: Uint8Array): Record<string, string> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
  const records: Record<string, string> = Object.create(null) as Record<string, string>;
  for (let at = 0; at < text.length;) {
    const space = text.indexOf(' ', at);
    const digits = space < 0 ? '' : text.slice(at, space);
    const end = at + Number(digits);
    const equals = text.indexOf('=', space);
    const isWhole = /^[1-9][0-9]{0,9}$/.test(digits) && end <= text.length && end > space + 1;
    if (!isWhole || text[end - 1] !== '\n' || equals < 0 || equals >= end)
      throw invalid('a PAX header cannot be read');
    const key = text.slice(space + 1, equals);
    const value = text.slice(equals + 1, end - 1);
    if (key === 'size' && !/^[0-9]{1,15}$/.test(value)) throw invalid('a PAX size is no number');
    records[key] = value;
    at = end;
  }
  return records;
}

function invalid(problem: string): Failure {
  return new Failure('LAYER_INVALID', problem);
}

function tarFailure(thrown: unknown): unknown {
  if (thrown instanceof Failure) return thrown;
  const problem = thrown instanceof Error ? thrown.message : String(thrown);
  return new Failure('LAYER_INVALID', `the archive cannot be read: ${problem}`, { cause: thrown });
}
