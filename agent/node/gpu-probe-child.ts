// The process in which nvidia-smi is run and its XML is parsed, so that a hung driver, a flood of output or a parser
// gone wild costs a child and not the agent. Prints one JSON value: a SmiAnswer, or how the tool failed.
import childProcess, { type ExecException } from 'node:child_process';
import { createRequire } from 'node:module';
import { limits } from '../../shared/limits.ts';
import { readSmiLog } from './nvidia-smi.ts';

/** What this process prints. */
export type ChildAnswer =
  ReturnType<typeof readSmiLog> | { kind: 'tool'; code: number | null; words: string };

type ExecDone = (error: ExecException | null, stdout: string, stderr: string) => void;

// The agent holds the other end: when it dies, so does this group, nvidia-smi included.
process.stdin.on('end', () => process.kill(-process.pid, 'SIGKILL')).resume();

// node-nvidia-smi calls exec(command, callback) with Node's bound of 1 MiB, which eight Blackwell GPUs reach (120 KB
// of supported clocks each), and drops stdout of a failed run, where nvidia-smi says why. It takes exec from this
// module when it is loaded, so it is given one with our bound that remembers the words.
const exec = childProcess.exec;
let words = '';
const boundedExec = (command: string, done: ExecDone): void => {
  exec(command, { maxBuffer: limits.probeOutputBytes }, (error, stdout, stderr) => {
    words = `${stderr} ${stdout}`.replace(/\s+/g, ' ').trim().slice(0, 300);
    // Warnings (a corrupted infoROM) before, after or beside a good log are not a failure of all GPUs.
    const log = /<\?xml[^]*<\/nvidia_smi_log>/.exec(stdout)?.[0];
    done(error, log ?? stdout, error ? stderr : '');
  });
};
Object.assign(childProcess, { exec: boundedExec });

type ReadSmi = (done: (error: unknown, data: unknown) => void) => void;
const readSmi: ReadSmi = createRequire(import.meta.url)('node-nvidia-smi');

readSmi((error, data) => {
  const answer: ChildAnswer = error ? failureOf(error) : readSmiLog(data);
  process.stdout.write(JSON.stringify(answer), () => process.exit(0));
});

function failureOf(error: unknown): ChildAnswer {
  if (!(error instanceof Error))
    return { kind: 'unusable', reason: `nvidia-smi: ${String(error).slice(0, 300)}` };
  const code = 'code' in error ? error.code : undefined;
  if (code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER')
    return { kind: 'unusable', reason: `nvidia-smi printed over ${limits.probeOutputBytes} bytes` };
  if ('cmd' in error) return { kind: 'tool', code: typeof code === 'number' ? code : null, words };
  return { kind: 'unusable', reason: `nvidia-smi printed no XML: ${words.slice(0, 120)}` };
}
