// Every process that belongs to a bare runner, found by the mark in its environment (`RUNMESH_RUNNER=<its folder>`), which
// descendants inherit whatever session or parent they choose. For machines without cgroups, where nothing else holds
// them together. One that wipes its own environment gets away: README.md says so.
import { readdir, readFile } from 'node:fs/promises';
import { sleep, type Clock } from '../../shared/clock.ts';
import { systemCode } from '../../shared/failure.ts';
import { identify, isSameProcess } from './process-identity.ts';

export const RUNNER_MARK = 'RUNMESH_RUNNER';

const ROUNDS = 100;

/** Pids whose environment carries the mark of this runner. */
export async function markedProcesses(mark: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found: number[] = [];
  for (const pid of pids) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (environment.split('\0').includes(`${RUNNER_MARK}=${mark}`)) found.push(pid);
  }
  return found;
}

/** Kills them until none is left; each is proven again right before its signal (A3). */
export async function killMarked(mark: string, clock: Clock): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) {
    const pids = await markedProcesses(mark);
    if (pids.length === 0) return;
    for (const pid of pids) {
      const known = await identify(pid);
      if (known !== undefined && (await isSameProcess(known))) signalQuietly(pid, 'SIGKILL');
    }
    await sleep(clock, 10);
  }
}

/** Sends a signal (to a group when `pid` is negative); fine when nobody is there. */
export function signalQuietly(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  try {
    process.kill(pid, signal);
  } catch (thrown) {
    if (systemCode(thrown) !== 'ESRCH') throw thrown;
  }
}
