// The command `runmesh`, put together: its subcommands, its help and what is the same in all of them.
import { Command } from 'commander';
import { exitCodesText } from './exit-codes.ts';
import { DEFAULT_URL } from './http.ts';
import type { Shell } from './shell.ts';

type Fill = (command: Command, shell: Shell) => void;

interface CommandRow {
  name: string;
  summary: string;
  /** Loads arguments, options and action: only for the command that is asked for, because some take long to load. */
  load: () => Promise<Fill>;
}

const groups: Record<string, readonly CommandRow[]> = {
  'Run the platform:': [
    {
      name: 'dev',
      summary: 'run everything on this machine, to try it',
      load: async () => (await import('./commands/dev.ts')).fillDev,
    },
    {
      name: 'coordinator',
      summary: 'run a coordinator',
      load: async () => (await import('./commands/coordinator.ts')).fillCoordinator,
    },
    {
      name: 'agent',
      summary: 'run the agent of this machine',
      load: async () => (await import('./commands/agent.ts')).fillAgent,
    },
  ],
  'Use it:': [
    {
      name: 'deploy',
      summary: 'deploy an app file',
      load: async () => (await import('./commands/deploy.ts')).fillDeploy,
    },
    {
      name: 'run',
      summary: 'call an app and print its result',
      load: async () => (await import('./commands/run.ts')).fillRun,
    },
  ],
  'Look at it:': [
    {
      name: 'apps',
      summary: 'list apps, or show one',
      load: async () => (await import('./commands/apps.ts')).fillApps,
    },
    {
      name: 'runners',
      summary: 'list runners, or stop one',
      load: async () => (await import('./commands/runners.ts')).fillRunners,
    },
    {
      name: 'nodes',
      summary: 'list nodes',
      load: async () => (await import('./commands/nodes.ts')).fillNodes,
    },
    {
      name: 'requests',
      summary: 'list requests, or show one',
      load: async () => (await import('./commands/requests.ts')).fillRequests,
    },
    {
      name: 'logs',
      summary: 'print the output of a runner',
      load: async () => (await import('./commands/logs.ts')).fillLogs,
    },
  ],
};

const AFTER = `
Environment:
  RUNMESH_URL   where the coordinator is (default: ${DEFAULT_URL})
  RUNMESH_KEY   API key, sent as "Authorization: Key …"
  NO_COLOR      no colours

${exitCodesText()}

Examples:
  $ runmesh dev                         everything on this machine, to try it
  $ runmesh deploy app.yaml             in a second terminal
  $ runmesh run demo/hello --input '{"name":"you"}'`;

/** The program with the command that `words` (the command line behind the name) asks for filled in. */
export async function buildProgram(shell: Shell, words: readonly string[]): Promise<Command> {
  const program = new Command('runmesh')
    .description('Serverless GPU platform for machines you own.')
    .usage('<command> [options]')
    .version(shell.version, '-V, --version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show help of a command')
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .configureOutput({
      writeOut: (text) => shell.terminal.out(text),
      writeErr: (text) => shell.terminal.error(text),
      getOutHelpWidth: () => shell.terminal.columns ?? 100,
      getErrHelpWidth: () => shell.terminal.columns ?? 100,
      getOutHasColors: () => shell.terminal.colour,
      getErrHasColors: () => shell.terminal.colour,
      outputError: (text, write) => write(`runmesh: ${text.replace(/^error: /, '')}`),
    })
    .showHelpAfterError('  next: add --help to see what there is')
    .addHelpText('after', AFTER)
    .exitOverride();
  const asked = words[0] === 'help' ? words[1] : words.find((word) => !word.startsWith('-'));
  for (const [heading, rows] of Object.entries(groups)) {
    program.commandsGroup(heading);
    for (const { name, summary, load } of rows) {
      const command = program.command(name).summary(summary);
      if (name === asked) (await load())(command, shell);
    }
  }
  return program;
}
