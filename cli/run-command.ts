// Runs one command line to its end: what it throws becomes a text on stderr and an exit code, here and nowhere else.
import { CommanderError } from 'commander';
import { AlreadyTold, asCommandFailure, failureJson, failureText } from './command-failure.ts';
import { exits } from './exit-codes.ts';
import { holdOpen } from './hold-open.ts';
import { buildProgram } from './program.ts';
import type { Shell } from './shell.ts';

/** @param words the command line behind the name of the program. @returns the exit code */
export async function runCommand(shell: Shell, words: readonly string[]): Promise<number> {
  const release = holdOpen();
  try {
    const program = await buildProgram(shell, words);
    await program.parseAsync([...words], { from: 'user' });
    return exits.ok.code;
  } catch (thrown) {
    return tell(shell, thrown, words.includes('--json'));
  } finally {
    release();
  }
}

function tell(shell: Shell, thrown: unknown, json: boolean): number {
  if (thrown instanceof AlreadyTold) return exits[thrown.exit].code;
  // Commander has printed its own message; help and version leave through here, too.
  if (thrown instanceof CommanderError)
    return thrown.exitCode === 0 ? exits.ok.code : exits.usage.code;
  const failure = asCommandFailure(thrown);
  shell.terminal.error(json ? failureJson(failure) : failureText(failure));
  // A defect of ours is reported with its stack.
  if (failure.exit === 'ours' && !json && thrown instanceof Error)
    shell.terminal.error(`${thrown.stack}\n`);
  return exits[failure.exit].code;
}
