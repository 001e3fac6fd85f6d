// The policy for one entry of an archive: what it may be, before anything touches the disk. Pure: a header becomes an
// `Entry` or a refusal that names it. Whether parents are links is a question for the disk: layer-tree.ts.
//
// Refused: `..`, NUL, names too long or too deep, sparse files (they would come out wrong in silence), types we do not
// know, attributes that belong to overlayfs (they would forge whiteouts), sizes on things that have none, char device
// 0:0 (a whiteout in disguise), whiteouts of nothing.
import { Failure } from '../../shared/failure.ts';
import { staysInside } from '../../shared/inner-link.ts';
import { limits } from '../../shared/limits.ts';
import { ROOT, joinPath, shownPath, type BytePath } from './byte-path.ts';

/** A header as tar-reader.ts hands it over: strings are bytes (latin1). */
export interface TarHeader {
  name: string;
  /** null: a type that tar-stream does not know. */
  type: string | null;
  linkname: string | null;
  sizeBytes: number;
  mode: number;
  uid: number;
  gid: number;
  /** Seconds. */
  mtime: number;
  devmajor: number;
  devminor: number;
  pax: Readonly<Record<string, string>>;
}

export interface EntryAttributes {
  mode: number;
  uid: number;
  gid: number;
  /** Seconds, with a fraction where the archive has one. */
  mtime: number;
  xattrs: ReadonlyMap<string, Uint8Array>;
}

export type Entry =
  | { kind: 'file'; path: BytePath; sizeBytes: number; attributes: EntryAttributes }
  | { kind: 'folder'; path: BytePath; attributes: EntryAttributes }
  | { kind: 'symlink'; path: BytePath; target: string; attributes: EntryAttributes }
  | { kind: 'link'; path: BytePath; target: BytePath }
  | {
      kind: 'device';
      path: BytePath;
      device: { kind: 'char' | 'block'; major: number; minor: number } | { kind: 'fifo' };
      attributes: EntryAttributes;
    }
  | { kind: 'whiteout'; path: BytePath }
  | { kind: 'opaque'; path: BytePath }
  /** Metadata of aufs that docker and containerd skip too. */
  | { kind: 'skip' };

/** `layer`: an image layer. `folder`: a packed folder, which holds files, folders and inner links only. */
export type EntryPolicy = 'layer' | 'folder';

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
const AUFS = '.wh..wh.';
const NAME_BYTES = 255;
const MAX_ID = 2 ** 32 - 2;
const XATTR = 'SCHILY.xattr.';

/** @throws Failure LAYER_INVALID naming the entry */
export function readEntry(header: TarHeader, policy: EntryPolicy): Entry {
  const shown = shownPath(header.name);
  const components = readPath(header.name, shown);
  const name = components.at(-1) ?? '';
  if (policy === 'layer') {
    if (components.slice(0, -1).some((part) => part.startsWith(WHITEOUT)))
      throw refusal(shown, 'lies in a folder whose name begins with .wh.');
    if (name.startsWith(WHITEOUT)) return readWhiteout(header, components, shown);
  }
  if (Object.keys(header.pax).some((key) => key.startsWith('GNU.sparse.')))
    throw refusal(shown, 'is a sparse file; pack the layer without --sparse');
  const path = components.reduce<BytePath>(joinPath, ROOT);
  const attributes = readAttributes(header, policy, shown);
  if (path === ROOT && header.type !== 'directory') throw refusal(shown, 'replaces the root');
  const bare = (): void => {
    if (header.sizeBytes > 0) throw refusal(shown, `is a ${header.type} with a size`);
  };
  switch (header.type) {
    case 'file':
    case 'contiguous-file':
      return { kind: 'file', path, sizeBytes: header.sizeBytes, attributes };
    case 'directory':
      return { kind: 'folder', path, attributes };
    case 'symlink': {
      bare();
      const target = readLinkTarget(header, shown);
      if (policy === 'folder' && !staysInside(components, target))
        throw refusal(shown, 'is a symlink that leads out of the folder');
      return { kind: 'symlink', path, target, attributes };
    }
    case 'link': {
      bare();
      const target = readPath(readLinkTarget(header, shown), `${shown} (target)`);
      if (target.length === 0) throw refusal(shown, 'is a hard link to the root');
      return { kind: 'link', path, target: target.reduce<BytePath>(joinPath, ROOT) };
    }
    case 'character-device':
    case 'block-device':
    case 'fifo':
      bare();
      if (policy === 'folder') throw refusal(shown, `is a ${header.type}`);
      return { kind: 'device', path, device: readDevice(header, shown), attributes };
    default:
      throw refusal(
        shown,
        'is of a type that cannot be unpacked (sparse, multi-volume or unknown)',
      );
  }
}

function readWhiteout(header: TarHeader, components: readonly string[], shown: string): Entry {
  const name = components.at(-1) ?? '';
  const folder = components.slice(0, -1).reduce<BytePath>(joinPath, ROOT);
  if (header.type !== 'file' && header.type !== 'link')
    throw refusal(shown, 'has a name that begins with .wh. and is not a whiteout');
  if (name === OPAQUE) return { kind: 'opaque', path: folder };
  if (name.startsWith(AUFS)) return { kind: 'skip' };
  const hidden = name.slice(WHITEOUT.length);
  if (hidden === '' || hidden === '.' || hidden === '..')
    throw refusal(shown, 'is a whiteout of nothing');
  return { kind: 'whiteout', path: joinPath(folder, hidden) };
}

/** Components without `.` and empty ones; a leading slash means the root of the tree, as docker has it. */
function readPath(name: string, shown: string): string[] {
  if (name.includes('\0')) throw refusal(shown, 'has a NUL in its name');
  if (name.length > limits.layerPathBytes)
    throw refusal(shown, `has a path over ${limits.layerPathBytes} bytes`);
  const components = name.split('/').filter((part) => part !== '' && part !== '.');
  if (components.includes('..')) throw refusal(shown, 'has .. in its path');
  if (components.some((part) => part.length > NAME_BYTES))
    throw refusal(shown, `has a name over ${NAME_BYTES} bytes`);
  if (components.length > limits.layerDepth)
    throw refusal(shown, `is more than ${limits.layerDepth} folders deep`);
  return components;
}

function readLinkTarget(header: TarHeader, shown: string): string {
  const target = header.linkname ?? '';
  if (target === '') throw refusal(shown, 'is a link to nothing');
  if (target.includes('\0')) throw refusal(shown, 'has a NUL in its link target');
  if (target.length >= limits.layerPathBytes)
    throw refusal(shown, `has a link target over ${limits.layerPathBytes} bytes`);
  return target;
}

function readDevice(
  header: TarHeader,
  shown: string,
): { kind: 'char' | 'block'; major: number; minor: number } | { kind: 'fifo' } {
  if (header.type === 'fifo') return { kind: 'fifo' };
  const { devmajor: major, devminor: minor } = header;
  const isNumber = (value: number, most: number): boolean =>
    Number.isInteger(value) && value >= 0 && value <= most;
  if (!isNumber(major, 4095) || !isNumber(minor, 2 ** 20 - 1))
    throw refusal(shown, 'has device numbers that do not exist');
  const kind = header.type === 'block-device' ? 'block' : 'char';
  if (kind === 'char' && major === 0 && minor === 0)
    throw refusal(shown, 'is the device 0:0, which overlayfs takes for a whiteout');
  return { kind, major, minor };
}

function readAttributes(header: TarHeader, policy: EntryPolicy, shown: string): EntryAttributes {
  const { pax } = header;
  const number = (paxValue: string | undefined, value: number, what: string): number => {
    const read = paxValue === undefined ? value : Number(paxValue);
    if (paxValue === '' || !Number.isFinite(read)) throw refusal(shown, `has a wrong ${what}`);
    return read;
  };
  const id = (paxValue: string | undefined, value: number, what: string): number => {
    const read = number(paxValue, value, what);
    if (!Number.isInteger(read) || read < 0 || read > MAX_ID)
      throw refusal(shown, `has the impossible ${what} ${read}`);
    return read;
  };
  const mtime = number(pax['mtime'], header.mtime, 'mtime');
  return {
    // A packed folder runs as whoever runs it: no setuid, and nothing for others to write.
    mode: number(undefined, header.mode, 'mode') & (policy === 'layer' ? 0o7777 : 0o755),
    uid: id(pax['uid'], header.uid, 'uid'),
    gid: id(pax['gid'], header.gid, 'gid'),
    // What ext4 can hold: 1901 to 2446.
    mtime: Math.min(Math.max(mtime, -(2 ** 31)), 15_032_385_535),
    xattrs: policy === 'layer' ? readXattrs(pax, shown) : new Map(),
  };
}

/** Kept: `user.*`, capabilities and ACLs. Others (labels of the builder's machine) are dropped. */
function readXattrs(
  pax: Readonly<Record<string, string>>,
  shown: string,
): ReadonlyMap<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>();
  for (const [key, value] of Object.entries(pax)) {
    if (!key.startsWith(XATTR)) continue;
    const name = key.slice(XATTR.length);
    if (/^(?:trusted|user)\.overlay(?:\.|$)/.test(name))
      throw refusal(shown, `has the attribute ${name}, which belongs to overlayfs`);
    if (!isKept(name)) continue;
    if (name.length > NAME_BYTES || value.length > limits.xattrBytes)
      throw refusal(shown, `has an attribute over ${limits.xattrBytes} bytes`);
    xattrs.set(name, Buffer.from(value, 'latin1'));
  }
  return xattrs;
}

function isKept(name: string): boolean {
  if (!/^[\x21-\x7e]+$/.test(name)) return false;
  return (
    /^user\../.test(name) ||
    ['security.capability', 'system.posix_acl_access', 'system.posix_acl_default'].includes(name)
  );
}

function refusal(shown: string, problem: string): Failure {
  return new Failure('LAYER_INVALID', `entry ${shown} ${problem}`);
}
