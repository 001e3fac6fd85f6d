// The tree of one layer while it is written: applies entries to a folder that nobody else can reach (0700), so that
// what was looked at cannot change before it is used. Synchronous on purpose: it runs in a thread of its own
// (unpack-thread.ts), where a call into the kernel is cheaper than a promise.
//
//   - Nothing outside the root is touched: each parent is looked at component by component, links are never followed.
//   - A layer is unpacked alone, without those below it. What it hides is marked for overlayfs: whiteouts are device
//     0:0 (hard links of one node made by the host), opaque folders an attribute that the host sets afterwards.
//   - Folders get owner, mode and time at the end, when nothing is written into them any more.
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
  type Stats,
} from 'node:fs';
import { Failure, systemCode } from '../../shared/failure.ts';
import {
  ROOT,
  isBelow,
  joinPath,
  onDisk,
  parentOf,
  shownPath,
  type BytePath,
} from './byte-path.ts';
import type { Entry, EntryAttributes } from './tar-entry.ts';
import type { ContentSink } from './tar-reader.ts';

type DeviceEntry = Extract<Entry, { kind: 'device' }>;

export interface LayerTreeOptions {
  /** Existing and empty. */
  root: BytePath;
  /** Whether owners can be set: root can. */
  owners: boolean;
  /** A char device 0:0 on the same file system; absent where none can be made. */
  whiteoutNode?: BytePath;
}

/** What is left for the host to do, and what somebody who mounts the layer must know. */
export interface LayerTreeRest {
  devices: readonly DeviceEntry[];
  /** Times of the folders that get devices, to be set again after it. */
  folderTimes: ReadonlyMap<BytePath, number>;
  xattrs: ReadonlyMap<BytePath, ReadonlyMap<string, Uint8Array>>;
  /** Folders that hide everything below them in lower layers. */
  opaque: readonly BytePath[];
  /** Folders that the archive uses but does not describe: their attributes are the lower layers'. */
  implied: readonly BytePath[];
  /** What could not be done here, in words. */
  lacks: readonly string[];
  entries: number;
}

const NEW_FILE = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW;

export class LayerTree {
  readonly #root: BytePath;
  readonly #options: LayerTreeOptions;
  /** Folders seen to be real folders; they stay so, because only this tree changes them. */
  readonly #folders = new Set<BytePath>([ROOT]);
  readonly #described = new Map<BytePath, EntryAttributes>();
  readonly #implied = new Set<BytePath>([ROOT]);
  readonly #whiteouts = new Set<BytePath>();
  readonly #opaque = new Set<BytePath>();
  readonly #devices = new Map<BytePath, DeviceEntry>();
  readonly #xattrs = new Map<BytePath, ReadonlyMap<string, Uint8Array>>();
  readonly #lacks = new Set<string>();
  #entries = 0;

  constructor(options: LayerTreeOptions) {
    this.#root = options.root;
    this.#options = options;
  }

  /** Applies one entry; a file's bytes go to the sink. @throws Failure LAYER_INVALID, DISK_FULL */
  apply(entry: Entry): ContentSink | undefined {
    this.#entries += 1;
    switch (entry.kind) {
      case 'file':
        return this.#file(entry);
      case 'folder':
        return void this.#folder(entry);
      case 'symlink':
        return void this.#symlink(entry);
      case 'link':
        return void this.#link(entry);
      case 'device':
        this.#makeRoom(entry.path);
        this.#devices.set(entry.path, entry);
        this.#keepXattrs(entry.path, entry.attributes);
        return undefined;
      case 'whiteout':
        return void this.#whiteout(entry.path);
      case 'opaque':
        this.#enter(entry.path, entry.path);
        this.#opaque.add(entry.path);
        return undefined;
      case 'skip':
        return undefined;
    }
  }

  /** Gives the folders their owners, modes and times, deepest first. */
  finish(): LayerTreeRest {
    for (const path of [...this.#folders].sort().reverse()) {
      const attributes = this.#described.get(path);
      const place = onDisk(this.#root, path);
      if (!attributes) {
        chmodSync(place, 0o755);
        continue;
      }
      if (this.#options.owners) chownSync(place, attributes.uid, attributes.gid);
      chmodSync(place, attributes.mode);
      utimesSync(place, attributes.mtime, attributes.mtime);
    }
    const folderTimes = new Map<BytePath, number>();
    for (const folder of [...this.#devices.keys()].map(parentOf)) {
      const attributes = this.#described.get(folder);
      if (attributes) folderTimes.set(folder, attributes.mtime);
    }
    return {
      devices: [...this.#devices.values()],
      folderTimes,
      xattrs: this.#xattrs,
      opaque: [...this.#opaque],
      implied: [...this.#implied],
      lacks: [...this.#lacks],
      entries: this.#entries,
    };
  }

  #file({ path, attributes }: Extract<Entry, { kind: 'file' }>): ContentSink {
    this.#makeRoom(path);
    const fd = openSync(onDisk(this.#root, path), NEW_FILE, 0o600);
    this.#keepXattrs(path, attributes);
    return {
      write(bytes) {
        for (let at = 0; at < bytes.byteLength;) at += writeSync(fd, bytes, at);
      },
      end: () => {
        // Changing the owner clears setuid, so the mode comes after it.
        if (this.#options.owners) fchownSync(fd, attributes.uid, attributes.gid);
        fchmodSync(fd, attributes.mode);
        futimesSync(fd, attributes.mtime, attributes.mtime);
        closeSync(fd);
      },
    };
  }

  #folder({ path, attributes }: Extract<Entry, { kind: 'folder' }>): void {
    if (path !== ROOT) {
      const parent = parentOf(path);
      this.#enter(parent, path);
      if (!this.#folders.has(path)) {
        const hidden = this.#clear(path);
        mkdirSync(onDisk(this.#root, path), 0o700);
        this.#folders.add(path);
        if (hidden) this.#opaque.add(path);
      }
    }
    this.#implied.delete(path);
    this.#described.set(path, attributes);
    this.#xattrs.delete(path);
    this.#keepXattrs(path, attributes);
  }

  #symlink({ path, target, attributes }: Extract<Entry, { kind: 'symlink' }>): void {
    this.#makeRoom(path);
    const place = onDisk(this.#root, path);
    symlinkSync(Buffer.from(target, 'latin1'), place);
    if (this.#options.owners) lchownSync(place, attributes.uid, attributes.gid);
    lutimesSync(place, attributes.mtime, attributes.mtime);
    this.#keepXattrs(path, attributes);
  }

  /** A second name for a file of this layer; the target's parents are held to the same rule. */
  #link({ path, target }: Extract<Entry, { kind: 'link' }>): void {
    const refuse = (problem: string): never => {
      throw new Failure(
        'LAYER_INVALID',
        `entry ${shownPath(path)} is a hard link to ${shownPath(target)}, ${problem}`,
      );
    };
    if (path === target) return;
    const device = this.#devices.get(target);
    if (device) {
      this.#makeRoom(path);
      this.#devices.set(path, { ...device, path });
      return;
    }
    for (let at = ROOT, rest = target.split('/'); rest.length > 1; rest = rest.slice(1)) {
      at = joinPath(at, rest[0] ?? '');
      if (!this.#isFolder(at)) refuse('whose folder is not a folder of this layer');
    }
    const found = this.#look(target);
    if (!found || this.#whiteouts.has(target)) return refuse('which is not in this layer');
    if (!found.isFile() && !found.isSymbolicLink()) refuse('which is no file');
    if (isBelow(target, path)) refuse('which it would replace');
    this.#makeRoom(path);
    linkSync(onDisk(this.#root, target), onDisk(this.#root, path));
    const xattrs = this.#xattrs.get(target);
    if (xattrs) this.#xattrs.set(path, xattrs);
  }

  /** Hides a name of lower layers. Something of this layer by that name hides it already; a folder must be opaque. */
  #whiteout(path: BytePath): void {
    this.#enter(parentOf(path), path);
    if (this.#whiteouts.has(path) || this.#devices.has(path)) return;
    const found = this.#look(path);
    if (found) {
      if (found.isDirectory()) this.#opaque.add(path);
      return;
    }
    this.#makeWhiteout(path);
  }

  #makeWhiteout(path: BytePath): void {
    const node = this.#options.whiteoutNode;
    if (node === undefined) {
      this.#lacks.add('whiteouts (no device nodes can be made here)');
      return;
    }
    try {
      linkSync(Buffer.from(node, 'latin1'), onDisk(this.#root, path));
      this.#whiteouts.add(path);
    } catch (error) {
      if (systemCode(error) !== 'EMLINK') throw error;
      throw new Failure('LAYER_INVALID', 'the layer hides more names than one device can have', {
        cause: error,
      });
    }
  }

  /** Makes sure that every parent is a folder of this layer, and that nothing is at `path` itself. */
  #makeRoom(path: BytePath): void {
    this.#enter(parentOf(path), path);
    this.#clear(path);
  }

  /** Walks to `folder`, making what is missing. `forEntry` is named when that cannot be. */
  #enter(folder: BytePath, forEntry: BytePath): void {
    if (this.#folders.has(folder)) return;
    this.#enter(parentOf(folder), forEntry);
    const found = this.#look(folder);
    const isHidden = this.#whiteouts.has(folder);
    if (this.#devices.has(folder) || (found && !isHidden))
      throw new Failure(
        'LAYER_INVALID',
        `entry ${shownPath(forEntry)} lies below ${shownPath(folder)}, which is no folder` +
          (found?.isSymbolicLink() ? ' but a symlink, and links are not followed' : ''),
      );
    if (isHidden) {
      this.#clear(folder);
      this.#opaque.add(folder);
    }
    mkdirSync(onDisk(this.#root, folder), 0o700);
    this.#folders.add(folder);
    this.#implied.add(folder);
  }

  /** Removes what this layer has at `path`, with what is below; true when that was a whiteout. */
  #clear(path: BytePath): boolean {
    this.#devices.delete(path);
    this.#xattrs.delete(path);
    const found = this.#look(path);
    if (!found) return false;
    const place = onDisk(this.#root, path);
    if (!found.isDirectory()) {
      unlinkSync(place);
      return this.#whiteouts.delete(path);
    }
    rmSync(place, { recursive: true });
    const wasOpaque = this.#opaque.has(path);
    const kept = [
      this.#folders,
      this.#described,
      this.#implied,
      this.#whiteouts,
      this.#opaque,
      this.#devices,
      this.#xattrs,
    ];
    for (const known of kept)
      for (const at of [...known.keys()]) if (at === path || isBelow(at, path)) known.delete(at);
    return wasOpaque;
  }

  #isFolder(path: BytePath): boolean {
    return this.#folders.has(path);
  }

  #look(path: BytePath): Stats | undefined {
    return lstatSync(onDisk(this.#root, path), { throwIfNoEntry: false });
  }

  #keepXattrs(path: BytePath, { xattrs }: EntryAttributes): void {
    if (xattrs.size > 0) this.#xattrs.set(path, xattrs);
  }
}
