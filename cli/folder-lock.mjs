// A lock between processes that share a folder on one machine: whoever can put a folder with its
// own name tag at `path` holds it. Plain JavaScript, because bootstrap.mjs needs it on Node 20
// before anything is installed; test/tools uses the same one.
//
//   K1  The tag is complete before it is visible: it is written aside and moved into place by one
//       rename, which the kernel refuses while another tag lies there.
//   K2  A tag names a process by pid, start time and boot, so a recycled pid does not look alive.
//   K3  A dead owner's tag is moved to a name made of that owner's identity and stays there. Two
//       processes that saw the same dead owner thus cannot both clear the way: the second rename
//       finds the grave occupied, and the live tag that lies at `path` by then is left alone.
//   K4  Giving back is a rename too: a half-removed tag would look like a free place (K1).

import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const POLL_MS = 100;
const BOOT = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8);

/** Start time of a process in clock ticks since boot, or undefined when there is no such process. */
function startedAt(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command name is in parentheses and may itself contain spaces and parentheses.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** The owner written in the tag at `path`, as `pid-start-boot`, or undefined when nobody holds it. */
function ownerOf(path) {
  try {
    return readFileSync(join(path, 'owner'), 'utf8').trim();
  } catch {
    return undefined;
  }
}

function isAlive(owner) {
  const [pid, started, boot] = owner.split('-');
  return boot === BOOT && startedAt(pid) === started;
}

/** Moves `from` to `to`; false when `to` is occupied or `from` has gone. */
function move(from, to) {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(error.code)) return false;
    throw error;
  }
}

/**
 * Waits until this process holds the lock at `path` and returns the function that gives it back.
 * `onWait(pid)` is called once when somebody else holds it. Not reentrant.
 */
export async function takeFolderLock(path, onWait = () => {}) {
  mkdirSync(dirname(path), { recursive: true });
  const me = `${process.pid}-${startedAt(process.pid)}-${BOOT}`;
  const tag = `${path}.${me}.${process.hrtime.bigint()}`;
  mkdirSync(tag);
  writeFileSync(join(tag, 'owner'), `${me}\n`);
  let told = false;
  try {
    while (!move(tag, path)) {
      const owner = ownerOf(path);
      if (owner !== undefined && !isAlive(owner)) {
        if (move(path, `${path}.${owner}.dead`)) continue;
      } else if (owner !== undefined && !told) {
        onWait(Number.parseInt(owner, 10));
        told = true;
      }
      await pause(POLL_MS);
    }
  } catch (error) {
    rmSync(tag, { recursive: true, force: true });
    throw error;
  }
  return () => {
    move(path, tag);
    rmSync(tag, { recursive: true, force: true });
  };
}
