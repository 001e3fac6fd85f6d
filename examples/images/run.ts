// Runs one program of the set-up to its end, or throws with its words.
import { command, complaint, type CommandOptions } from '../../test/tools/command.ts';

/** @returns what it printed */
export async function run(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const ended = await command(file, args, { timeoutMs: 300_000, ...options });
  if (ended.code === 0) return ended.stdout;
  throw new Error(`${file} ${args.slice(0, 3).join(' ')} …: ${complaint(ended)}`);
}
