// The folder of one runner, `<data>/run/<driver>/<runner>`, and its end: never through a mount into what it shows.
import { readdir, rm } from 'node:fs/promises';
import { Failure, systemCode } from '../../shared/failure.ts';
import type { Host } from '../host/host.ts';
import { mountsUnder } from '../host/mount-table.ts';

/** Unmounts what is below, then deletes; a folder that is not there is fine. */
export async function removeRunFolder(host: Host, folder: string): Promise<void> {
  for (const target of await mountsUnder(folder)) await host.unmount(target);
  const still = await mountsUnder(folder);
  if (still.length > 0) {
    throw new Failure(
      'HOST_COMMAND_FAILED',
      `${still.join(', ')}: still mounted, so nothing is deleted`,
    );
  }
  await rm(folder, { recursive: true, force: true, maxRetries: 3, retryDelay: 20 });
}

/** Names of the runners that have a folder here. */
export async function runnersIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((thrown: unknown) => {
    if (systemCode(thrown) === 'ENOENT') return [];
    throw thrown;
  });
  return names.filter((name) => /^[a-z0-9][a-z0-9-]{0,62}$/.test(name));
}
