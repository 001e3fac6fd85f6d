// The unpacked layers of this node: `layers/<diff id hex>/fs` with `layer.json` beside it, one per diff id, shared by
// every image that has the layer.
//
//   C2  A layer is visible only when complete: it is unpacked under `.new-…`, synced, and renamed.
//   C4  A pinned layer is never removed.
//
// A process that cannot make device nodes unpacks what it can into a store of its own (`layers-partial/`), and says
// what is lacking: such layers are good for looking at, not for mounting.
import {
  chmod,
  lchown,
  lstat,
  lutimes,
  mkdir,
  readFile,
  readdir,
  rename,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import type { Chance } from '../../shared/chance.ts';
import { hexOf, isDigest, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { hexOfBytes } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import { diskFailure, removeTree, syncFolder, syncTree } from '../../shared/durable-folder.ts';
import { Flights } from '../content/flights.ts';
import { Gate } from '../content/gate.ts';
import { Pins, type Pin } from '../content/pins.ts';
import type { DeviceNode, Host, PathAttributes } from '../host/host.ts';
import { parentOf, shownPath, textOfBytes, type BytePath } from './byte-path.ts';
import { UnpackThreads } from './unpack-thread.ts';
import type { UnpackedArchive } from './unpack-archive.ts';

export interface LayerStoreOptions {
  /** The agent's data folder; `layers/` in it belongs to this store alone. */
  dataFolder: string;
  host: Host;
  chance: Chance;
  reserveBytes?: number;
  maxEntries?: number;
  maxBytes?: number;
}

/** What `layer.json` says; paths as bytes (latin1). */
export interface LayerRecord {
  diffId: Digest;
  /** Of the uncompressed archive. */
  sizeBytes: number;
  entries: number;
  /** Folders whose attributes are those of the layers below. */
  implied: readonly BytePath[];
  /** Folders that hide what lower layers have in them. */
  opaque: readonly BytePath[];
  /** What could not be done on this node, in words; empty for a whole layer. */
  lacks: readonly string[];
}

const OPAQUE = new Map([['trusted.overlay.opaque', Buffer.from('y')]]);
const IN_WORK = '.new-';

export class LayerStore {
  readonly #folder: string;
  readonly #options: LayerStoreOptions;
  /** Absent: this process cannot make device nodes. */
  readonly #whiteoutNode: string | undefined;
  readonly #present = new Set<Digest>();
  readonly #pins = new Pins<Digest>();
  readonly #flights = new Flights<void, never>();
  readonly #gate = new Gate(limits.layerUnpacks);
  readonly #threads = new UnpackThreads();
  #nodeCheck: Promise<void> = Promise.resolve();

  private constructor(folder: string, options: LayerStoreOptions, whiteoutNode?: string) {
    this.#folder = folder;
    this.#options = options;
    this.#whiteoutNode = whiteoutNode;
  }

  /** Reads what is there and removes what an interrupted unpack left. */
  static async open(options: LayerStoreOptions): Promise<LayerStore> {
    const { containers } = await options.host.abilities();
    const folder = join(options.dataFolder, containers.yes ? 'layers' : 'layers-partial');
    // 0700: setuid programs of images are nothing for the other users of this machine.
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const names = await readdir(folder);
    for (const name of names) if (name.startsWith('.')) await removeTree(join(folder, name));
    const store = new LayerStore(
      folder,
      options,
      containers.yes ? join(folder, '.whiteout') : undefined,
    );
    for (const name of names) {
      const diffId = `sha256:${name}`;
      if (isDigest(diffId)) store.#present.add(diffId);
    }
    return store;
  }

  has(diffId: Digest): boolean {
    return this.#present.has(diffId);
  }

  /** The folder to mount. @throws Failure NOT_FOUND */
  path(diffId: Digest): string {
    if (!this.has(diffId)) throw new Failure('NOT_FOUND', `layer ${diffId} is not unpacked here`);
    return join(this.#folder, hexOf(diffId), 'fs');
  }

  inventory(): readonly Digest[] {
    return [...this.#present];
  }

  /** Keeps a layer, present or still to come, until the pin is disposed of (C4). */
  pin(diffId: Digest): Pin {
    return this.#pins.pin(diffId);
  }

  /**
   * Unpacks a layer from its blob; one flight per layer (F51). The caller keeps the blob pinned.
   * @throws Failure LAYER_INVALID, DISK_FULL, HOST_COMMAND_FAILED; nothing of the layer stays behind
   */
  async unpack(diffId: Digest, blobPath: string, signal: AbortSignal): Promise<void> {
    if (this.has(diffId)) return;
    const end = await this.#flights.board(
      diffId,
      (_, flight) => this.#gate.through(() => this.#unpack(diffId, blobPath, flight), flight),
      undefined,
      signal,
    );
    if ('failure' in end) throw end.failure;
  }

  /** Removes a layer; fine when it is not there. @throws Failure CONFLICT while pinned (C4) */
  async remove(diffId: Digest): Promise<void> {
    if (this.#pins.has(diffId))
      throw new Failure('CONFLICT', `layer ${diffId} is in use`, { detail: { diffId } });
    if (!this.#present.delete(diffId)) return;
    const aside = join(this.#folder, `.gone-${hexOfBytes(this.#options.chance.bytes(8, 'layer'))}`);
    await rename(join(this.#folder, hexOf(diffId)), aside);
    await removeTree(aside);
  }

  async #unpack(diffId: Digest, blobPath: string, signal: AbortSignal): Promise<void> {
    const { chance } = this.#options;
    const work = join(this.#folder, `${IN_WORK}${hexOfBytes(chance.bytes(8, 'layer'))}`);
    const fs = join(work, 'fs');
    await mkdir(work, { mode: 0o700 });
    try {
      await mkdir(fs, { mode: 0o700 });
      await this.#freshWhiteoutNode();
      const unpacked = await this.#threads.unpack(
        {
          blobPath,
          folder: fs,
          policy: 'layer',
          owners: process.getuid?.() === 0,
          ...(this.#whiteoutNode === undefined ? {} : { whiteoutNode: this.#whiteoutNode }),
          diffId,
          reserveBytes: this.#options.reserveBytes ?? limits.diskReserveBytes,
          maxEntries: this.#options.maxEntries ?? limits.layerEntries,
          maxBytes: this.#options.maxBytes ?? limits.layerBytes,
        },
        signal,
      );
      const lacks = [...unpacked.lacks, ...(await this.#finish(fs, unpacked, signal))];
      const { sizeBytes, entries, implied, opaque } = unpacked;
      const record: LayerRecord = { diffId, sizeBytes, entries, implied, opaque, lacks };
      await writeFile(join(work, 'layer.json'), JSON.stringify(record));
      await syncTree(work, signal);
      await rename(work, join(this.#folder, hexOf(diffId)));
      await syncFolder(this.#folder);
      this.#present.add(diffId);
    } catch (error) {
      await removeTree(work);
      throw diskFailure(error, 'a layer');
    }
  }

  /** One at a time: several layers are unpacked beside each other. */
  #freshWhiteoutNode(): Promise<void> {
    const fresh = this.#nodeCheck.then(() => this.#checkWhiteoutNode());
    this.#nodeCheck = fresh.catch(() => undefined);
    return fresh;
  }

  /** A file can have 65,000 names on ext4: long before that the device is replaced, in one step. */
  async #checkWhiteoutNode(): Promise<void> {
    const path = this.#whiteoutNode;
    if (path === undefined) return;
    const { nlink } = await lstat(path).catch(() => ({ nlink: 0 }));
    if (nlink > 0 && nlink < 20_000) return;
    const aside = `${path}-next`;
    await removeTree(aside);
    const node: DeviceNode = { kind: 'char', path: aside, major: 0, minor: 0, mode: 0 };
    await this.#options.host.makeDevices([node]);
    await rename(aside, path);
  }

  /** What only the host can do: device nodes and attributes. Returns what it could not. */
  async #finish(
    fs: string,
    unpacked: UnpackedArchive,
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const place = (path: BytePath): string => {
      const text = textOfBytes(path);
      if (text === undefined)
        throw new Failure(
          'LAYER_INVALID',
          `entry ${shownPath(path)} has a device or an attribute under a name that is no UTF-8`,
        );
      return text === '' ? fs : join(fs, text);
    };
    if (this.#whiteoutNode === undefined) {
      const lacks = process.getuid?.() === 0 ? [] : ['owners (not root)'];
      if (unpacked.devices.length > 0) lacks.push('device nodes');
      if (unpacked.xattrs.size > 0 || unpacked.opaque.length > 0) lacks.push('attributes');
      return lacks;
    }
    await this.#makeDevices(unpacked, place, signal);
    const attributes = new Map<BytePath, PathAttributes>();
    for (const [path, xattrs] of unpacked.xattrs)
      attributes.set(path, { path: place(path), attributes: xattrs });
    for (const path of unpacked.opaque) {
      const own = attributes.get(path)?.attributes ?? new Map<string, Uint8Array>();
      attributes.set(path, { path: place(path), attributes: new Map([...own, ...OPAQUE]) });
    }
    if (attributes.size > 0)
      await this.#options.host.setAttributes([...attributes.values()], signal);
    return [];
  }

  async #makeDevices(
    { devices, folderTimes }: UnpackedArchive,
    place: (path: BytePath) => string,
    signal: AbortSignal,
  ): Promise<void> {
    if (devices.length === 0) return;
    const nodes = devices.map(({ path, device, attributes }): DeviceNode => {
      return { ...device, path: place(path), mode: attributes.mode };
    });
    await this.#options.host.makeDevices(nodes, signal);
    for (const { path, attributes } of devices) {
      const { uid, gid, mode, mtime } = attributes;
      await lchown(place(path), uid, gid);
      await chmod(place(path), mode);
      await lutimes(place(path), mtime, mtime);
      const folder = parentOf(path);
      const time = folderTimes.get(folder);
      if (time !== undefined) await lutimes(place(folder), time, time);
    }
  }
}

/** The record of an unpacked layer, by the folder that is mounted. */
export async function readLayerRecord(layerFolder: string): Promise<LayerRecord> {
  const path = join(layerFolder, '..', 'layer.json');
  return JSON.parse(await readFile(path, 'utf8')) as LayerRecord;
}
