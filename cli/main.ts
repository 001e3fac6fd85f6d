// Entry of the command `runmesh`: makes the shell of this process and runs one command line.
import { readFileSync } from 'node:fs';
import { systemChance } from '../shared/chance.ts';
import { systemClock } from '../shared/clock.ts';
import { exits } from './exit-codes.ts';
import { record } from './http.ts';
import { runCommand } from './run-command.ts';
import { processTerminal } from './terminal.ts';

// A reader that has seen enough (`runmesh requests | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exits.ok.code);
  throw error;
});

const shell = {
  terminal: processTerminal(),
  env: process.env,
  clock: systemClock,
  chance: systemChance,
  version: version(),
};

process.exitCode = await runCommand(shell, process.argv.slice(2));

function version(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return String(record(JSON.parse(text))?.['version']);
}
