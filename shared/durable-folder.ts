// The few moves that make a change on disk survive a power cut: fsync of a file, of a folder (a rename lives in the
// folder), of a whole file system for trees of many files.
import { execFile } from 'node:child_process';
import { open, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, systemCode } from './failure.ts';

/** Makes a folder's entries durable. */
export async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}

/**
 * Makes everything below `folder` durable with one syncfs(2), which a journaling file system does far faster than one
 * fsync per file. Node has no such call; `sync -f` of coreutils has. Where it is missing, each file is synced.
 */
export async function syncTree(folder: string, signal?: AbortSignal): Promise<void> {
  const code = await new Promise<unknown>((resolve) => {
    execFile('sync', ['-f', folder], { signal }, (error) => resolve(error?.code ?? 0));
  });
  signal?.throwIfAborted();
  if (code === 0) return;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    signal?.throwIfAborted();
    if (!entry.isFile() && !entry.isDirectory()) continue;
    await using handle = await open(join(entry.parentPath, entry.name), 'r');
    await handle.sync();
  }
  await syncFolder(folder);
}

/** Removes a tree; fine when it is not there. */
export async function removeTree(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true, maxRetries: 3 });
}

/** Free bytes for us on the file system of `folder`. */
export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}

export function isDiskFull(thrown: unknown): boolean {
  const code = systemCode(thrown);
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** A full disk as a Failure; anything else unchanged. */
export function diskFailure(thrown: unknown, what: string): unknown {
  if (!isDiskFull(thrown)) return thrown;
  return new Failure('DISK_FULL', `no space left for ${what}`, { cause: thrown });
}
