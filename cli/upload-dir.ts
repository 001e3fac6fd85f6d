// Packs the folder of a process app and brings it to the coordinator under its digest. The same folder gives the same
// digest, so deploying it twice stores it once.
import { openAsBlob } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packDir, type PackedDir } from '../shared/pack-dir.ts';
import type { Client } from './client.ts';

/**
 * @param packed told the size before the upload begins
 * @throws Failure INPUT_INVALID, INPUT_TOO_LARGE; CommandFailure
 */
export async function uploadDir(
  client: Client,
  folder: string,
  packed: (sizeBytes: number) => void,
): Promise<PackedDir> {
  const scratch = await mkdtemp(join(tmpdir(), 'runmesh-deploy-'));
  try {
    const target = join(scratch, 'app.tar');
    const dir = await packDir({ folder, target });
    packed(dir.sizeBytes);
    await client.putBlob(dir.digest, await openAsBlob(target));
    return dir;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
