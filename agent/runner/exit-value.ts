// How a main process ended, in the words of driver.ts.
import { constants } from 'node:os';
import type { Exit } from './driver.ts';

/** Signals that end processes by themselves or by others; other numbers above 128 are a program's own choice. */
const ENDING = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGILL',
  'SIGTRAP',
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
].concat(['SIGKILL', 'SIGUSR1', 'SIGSEGV', 'SIGUSR2', 'SIGPIPE', 'SIGALRM', 'SIGTERM', 'SIGSYS']);

/** A container's exit status: 128 + n stands for signal n, as shells and conmon have it. */
export function exitOfStatus(status: number, outOfMemory: boolean): Exit {
  const name = ENDING.find((signal) => Reflect.get(constants.signals, signal) === status - 128);
  return exitOf(name === undefined ? status : null, name ?? null, outOfMemory);
}

export function exitOf(code: number | null, signal: string | null, outOfMemory: boolean): Exit {
  if (signal === 'SIGKILL' && outOfMemory) return { kind: 'oom' };
  if (signal !== null) return { kind: 'signal', signal };
  return code === null ? { kind: 'unknown' } : { kind: 'code', code };
}
