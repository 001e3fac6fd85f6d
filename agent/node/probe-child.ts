// Runs one of our probe scripts as a child process that cannot hurt the agent: it has a deadline, bounded output, a
// process group of its own that is killed as a whole, and it dies with us (its stdin closes).
// A3: the group is signalled only while its leader is ours and not yet reaped, so its number cannot be another's.
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { deadline, type Clock } from '../../shared/clock.ts';
import { systemCode } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';

export type ProbeEnd = { kind: 'answer'; value: unknown } | { kind: 'failed'; reason: string };

export interface ProbeChildOptions {
  clock: Clock;
  /** File beside this one; prints one JSON value. */
  script: string;
  args?: readonly string[];
  timeoutMs?: number;
  /** Folders to look for programs in; the agent's own by default. */
  path?: string;
}

/** Starts `script` at most once at a time. */
export class ProbeChild {
  readonly #options: ProbeChildOptions;
  /** Group of a child that was killed for being late: something in it may be stuck inside the kernel. */
  #late: number | undefined;

  constructor(options: ProbeChildOptions) {
    this.#options = options;
  }

  /** Ends by the deadline or the signal at the latest. Never rejects. */
  async run(signal: AbortSignal): Promise<ProbeEnd> {
    if (signal.aborted) return { kind: 'failed', reason: 'the agent is stopping' };
    if (this.#late !== undefined && groupLives(this.#late))
      return {
        kind: 'failed',
        reason: 'an earlier probe is stuck in the driver and cannot be killed',
      };
    this.#late = undefined;
    const timeoutMs = this.#options.timeoutMs ?? limits.probeTimeoutMs;
    const late = new Error(`no answer within ${timeoutMs} ms`);
    const { signal: ending, cancel } = deadline(this.#options.clock, timeoutMs, late, signal);
    try {
      return await this.#runUntil(ending);
    } finally {
      cancel();
    }
  }

  #runUntil(ending: AbortSignal): Promise<ProbeEnd> {
    return new Promise((resolve) => {
      const child = this.#spawn();
      const chunks: Buffer[] = [];
      let sizeBytes = 0;
      let complaint = '';
      const end = (result: ProbeEnd): void => {
        ending.removeEventListener('abort', onAbort);
        this.#kill(child);
        resolve(result);
      };
      const fail = (reason: string): void => end({ kind: 'failed', reason });
      const onAbort = (): void => {
        this.#late = child.pid;
        fail(ending.reason instanceof Error ? ending.reason.message : 'the agent is stopping');
      };
      ending.addEventListener('abort', onAbort, { once: true });
      child.on('error', (error) =>
        fail(`the probe did not start: ${systemCode(error) ?? error.message}`),
      );
      child.stdin?.on('error', () => undefined); // it ended first
      child.stdout?.on('data', (chunk: Buffer) => {
        sizeBytes += chunk.length;
        if (sizeBytes > limits.commandOutputBytes)
          fail(`the probe printed over ${limits.commandOutputBytes} bytes`);
        else chunks.push(chunk);
      });
      child.stderr?.on('data', (chunk: Buffer) => {
        if (complaint.length < 500) complaint += chunk.toString();
      });
      child.on('close', (code, signalName) => {
        const value = parseJson(Buffer.concat(chunks).toString());
        if (code === 0 && value !== undefined) return end({ kind: 'answer', value });
        const how = signalName ? `was killed by ${signalName}` : `ended with code ${code}`;
        fail(`the probe ${how}: ${complaint.trim().slice(0, 300) || 'no words'}`);
      });
    });
  }

  #spawn(): ChildProcess {
    const { script, args = [], path = process.env['PATH'] ?? '' } = this.#options;
    return spawn(process.execPath, [join(import.meta.dirname, script), ...args], {
      detached: true, // a group of its own
      stdio: ['pipe', 'pipe', 'pipe'],
      // Nothing else of ours: no NODE_OPTIONS, no secrets; and messages in English.
      env: { PATH: path, LC_ALL: 'C' },
    });
  }

  #kill(child: ChildProcess): void {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch (error) {
      if (systemCode(error) !== 'ESRCH') throw error;
    }
    for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    child.unref();
  }
}

/** Whether a process group has a member that is more than a zombie. */
function groupLives(group: number): boolean {
  try {
    process.kill(-group, 0);
  } catch {
    return false;
  }
  return readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      // After the name in brackets: state, parent, group.
      const [state, , member] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(member) === group && state !== 'Z';
    } catch {
      return false; // it has gone
    }
  });
}

function parseJson(textual: string): unknown {
  try {
    return JSON.parse(textual) as unknown;
  } catch {
    return undefined;
  }
}
