// One agent per data folder. The lock is a folder with the name of its owner in it: pid, start time and boot, so that
// neither a recycled pid nor a reboot looks like a living owner.
//   K1  It is complete before it is visible: made aside and renamed into place, which the kernel refuses while another
//       lies there.
//   K2  A dead owner's lock is renamed to a grave that carries that owner's name. Of two processes that saw the same
//       dead owner only one can do so: for the other the grave is occupied, and a live lock is left alone. That is why
//       the newest grave stays until the next start.
import { readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, systemCode } from '../../shared/failure.ts';

export interface FolderLock {
  release(): Promise<void>;
}

const GRAVE = 'lock.dead-';

/** @throws Failure STORE_LOCKED naming the pid of the owner */
export async function lockFolder(folder: string): Promise<FolderLock> {
  const path = join(folder, 'lock');
  const me = nameOf(process.pid);
  if (me === undefined) throw new Failure('STORE_FAILED', '/proc does not show this process');
  const old = (await readdir(folder)).filter((name) => name.startsWith(GRAVE));
  const aside = `${path}.${me}`;
  await mkdir(aside, { mode: 0o700 });
  try {
    await writeFile(join(aside, 'owner'), me);
    for (let tries = 0; tries < 10; tries += 1) {
      if (await moved(aside, path)) {
        for (const grave of old) await rm(join(folder, grave), { recursive: true, force: true });
        return { release: () => release(path, me) };
      }
      const owner = await readFile(join(path, 'owner'), 'utf8').catch(() => undefined);
      if (owner === undefined) continue;
      const pid = Number(owner.split('-')[0]);
      if (nameOf(pid) === owner)
        throw new Failure('STORE_LOCKED', `${folder} is in use by process ${pid}`, {
          detail: { folder, pid },
        });
      await moved(path, join(folder, `${GRAVE}${owner}`));
    }
    throw new Failure('STORE_LOCKED', `${folder} is being taken by several processes at once`);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

/** A half-removed lock would look like a free place (K1), so it is renamed first. */
async function release(path: string, me: string): Promise<void> {
  if ((await readFile(join(path, 'owner'), 'utf8').catch(() => undefined)) !== me) return;
  const aside = `${path}.${me}`;
  if (await moved(path, aside)) await rm(aside, { recursive: true, force: true });
}

async function moved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (thrown) {
    if (['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(systemCode(thrown) ?? '')) return false;
    throw thrown;
  }
}

/** `pid-start-boot` of a living process, undefined when there is none. */
function nameOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command name stands in parentheses and may itself hold spaces and parentheses.
    const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8);
    return start === undefined ? undefined : `${pid}-${start}-${boot}`;
  } catch {
    return undefined;
  }
}
