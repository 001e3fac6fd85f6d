// The root file system of one runner: an overlay of its image's layers under a folder of its own.
//
//   run/<runner>/upper    what the runner writes
//   run/<runner>/work     overlayfs's own
//   run/<runner>/rootfs   where it is mounted
//
// The rootfs outlives this process with its runner (A2); whoever ends the runner disposes of it.
import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../../shared/failure.ts';
import { removeTree } from '../../shared/durable-folder.ts';
import type { Host } from '../host/host.ts';
import { makeImpliedFolders } from './implied-folders.ts';
import { readLayerRecord } from './layer-store.ts';

export interface Rootfs extends AsyncDisposable {
  /** Where it is mounted. */
  readonly path: string;
  /** What the runner wrote. */
  readonly upper: string;
}

export interface RootfsOptions {
  host: Host;
  /** `run/<runner>`, made when missing; everything in it but the three folders is the caller's. */
  folder: string;
  /** Topmost first, as ImagePuller returns them. */
  layerFolders: readonly string[];
}

/** @throws Failure HOST_COMMAND_FAILED, DRIVER_UNAVAILABLE; what was made is removed first */
export async function mountRootfs(options: RootfsOptions, signal?: AbortSignal): Promise<Rootfs> {
  const { host, folder, layerFolders } = options;
  const rootfs = openRootfs(host, folder);
  const work = join(folder, 'work');
  await rootfs[Symbol.asyncDispose]();
  try {
    for (const part of [rootfs.upper, work, rootfs.path]) {
      await mkdir(part, { recursive: true });
      // Others must be able to pass: a runner may live in a user namespace. The process's umask must not decide.
      await chmod(part, 0o755);
    }
    await checkWhole(layerFolders);
    await makeImpliedFolders(rootfs.upper, layerFolders);
    const lower = layerFolders.length > 0 ? layerFolders : [await emptyFolder(folder)];
    await host.mountOverlay({ lower, upper: rootfs.upper, work, target: rootfs.path }, signal);
    return rootfs;
  } catch (error) {
    await rootfs[Symbol.asyncDispose]();
    throw error;
  }
}

/** A rootfs that stands already (or not), to be looked at or disposed of. */
export function openRootfs(host: Host, folder: string): Rootfs {
  const path = join(folder, 'rootfs');
  const upper = join(folder, 'upper');
  return {
    path,
    upper,
    async [Symbol.asyncDispose]() {
      await host.unmount(path);
      for (const part of ['upper', 'work', 'rootfs', 'empty']) await removeTree(join(folder, part));
    },
  };
}

async function checkWhole(layerFolders: readonly string[]): Promise<void> {
  for (const folder of layerFolders) {
    const { diffId, lacks } = await readLayerRecord(folder);
    if (lacks.length > 0)
      throw new Failure('DRIVER_UNAVAILABLE', `layer ${diffId} lacks ${lacks.join(', ')}`);
  }
}

/** An image without layers: an overlay wants one lower folder. */
async function emptyFolder(folder: string): Promise<string> {
  const empty = join(folder, 'empty');
  await mkdir(empty, { recursive: true });
  return empty;
}
