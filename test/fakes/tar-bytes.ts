// Archives by hand, byte for byte, so that they can lie in ways that no tool would.

export interface TarPart {
  name?: string | Buffer;
  type?: string;
  linkname?: string;
  body?: string | Buffer;
  /** What the header says; the body's size unless told. */
  size?: number;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  devmajor?: number;
  devminor?: number;
  /** PAX records in front, verbatim values. */
  pax?: Record<string, string | Buffer>;
  /** Replaces the whole part. */
  raw?: Buffer;
  magic?: string;
}

const octal = (value: number, width: number): string =>
  `${value.toString(8).padStart(width - 1, '0')}\0`;

const padded = (bytes: Buffer): Buffer =>
  Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);

export function paxRecord(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length;
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
  return Buffer.concat([Buffer.from(`${length}`), rest]);
}

export function tarPart(part: TarPart): Buffer {
  if (part.raw) return part.raw;
  const body = Buffer.from(part.body ?? '');
  const header = Buffer.alloc(512);
  Buffer.from(part.name ?? 'x').copy(header, 0, 0, 100);
  header.write(octal(part.mode ?? (part.type === '5' ? 0o755 : 0o644), 8), 100);
  header.write(octal(part.uid ?? 0, 8), 108);
  header.write(octal(part.gid ?? 0, 8), 116);
  header.write(octal(part.size ?? body.length, 12), 124);
  header.write(octal(part.mtime ?? 1_000_000_000, 12), 136);
  header.write(part.type ?? '0', 156, 'latin1');
  header.write(part.linkname ?? '', 157, 100);
  header.write(part.magic ?? 'ustar\x0000', 257, 'latin1');
  header.write(octal(part.devmajor ?? 0, 8), 329);
  header.write(octal(part.devminor ?? 0, 8), 337);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const pax = Object.entries(part.pax ?? {}).map(([key, value]) => paxRecord(key, value));
  const front =
    pax.length > 0 ? tarPart({ name: 'PaxHeader', type: 'x', body: Buffer.concat(pax) }) : [];
  return Buffer.concat([...(Array.isArray(front) ? [] : [front]), header, padded(body)]);
}

/** Parts and the end of the archive. */
export function tarBytes(...parts: TarPart[]): Buffer {
  return Buffer.concat([...parts.map(tarPart), Buffer.alloc(1024)]);
}
