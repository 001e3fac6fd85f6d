// Proof that a pid still is the process that we started: pids are used again, the same pid with the same start time
// in the same boot is not (A3, proc_pid_stat(5)).
import { readFile } from 'node:fs/promises';
import { systemCode } from '../../shared/failure.ts';

export interface ProcessIdentity {
  bootId: string;
  pid: number;
  /** Start time in clock ticks since boot. */
  startTicks: number;
}

const GONE = new Set(['ENOENT', 'ESRCH']);

/** Field 22 of a stat line; the name in field 2 may hold spaces and brackets. */
export function startTicksOf(stat: string): number | undefined {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[19]);
  return fields[19] === undefined || Number.isNaN(ticks) ? undefined : ticks;
}

/** The identity of a process that runs now (or is a zombie), or undefined. Rejects when it cannot be told. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch((thrown: unknown) => {
    // Nothing else means "gone": a process without a free descriptor must not write its runners off.
    if (GONE.has(systemCode(thrown) ?? '')) return '';
    throw thrown;
  });
  const startTicks = startTicksOf(stat);
  if (startTicks === undefined) return undefined;
  return { bootId: await bootId(), pid, startTicks };
}

/** Whether the very same process is there now. */
export async function isSameProcess(known: ProcessIdentity): Promise<boolean> {
  const now = await identify(known.pid);
  return now !== undefined && now.startTicks === known.startTicks && now.bootId === known.bootId;
}

export async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}
