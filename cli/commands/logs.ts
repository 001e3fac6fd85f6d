// `runmesh logs`: what a runner printed; for an app, its newest live runner, or the one that ended last.
import type { Command } from 'commander';
import type { RunnerView } from '../../coordinator/core/query.ts';
import { CommandFailure } from '../command-failure.ts';
import type { Client } from '../client.ts';
import { printLog } from '../log-lines.ts';
import { withClient, type Shell } from '../shell.ts';
import { wholeNumber } from './requests.ts';

const EXAMPLES = `
Examples:
  $ runmesh logs acme/hello            the newest runner of an app
  $ runmesh logs acme/hello -f         and what it prints from now on
  $ runmesh logs RUNNER -n 50          the last 50 lines of one runner`;

export function fillLogs(command: Command, shell: Shell): void {
  command
    .description('Prints what a runner wrote to stdout and stderr.')
    .argument('<runner or app>', 'a runner id, or owner/alias for its newest runner')
    .option('-f, --follow', 'go on until the runner ends')
    .option('-n, --lines <n>', 'only the last lines of what there is', wholeNumber)
    .addHelpText('after', EXAMPLES)
    .action((target: string, options: { follow?: boolean; lines?: number }) =>
      withClient(shell, async (client) => {
        const id = target.includes('/') ? await newestRunner(shell, client, target) : target;
        const follow = options.follow ?? false;
        const response = await client.log(id, { offset: 0, follow });
        if (!response.body) return;
        await printLog(response.body, shell.terminal, {
          tail: options.lines,
          clock: shell.clock,
        });
      }),
    );
}

async function newestRunner(shell: Shell, client: Client, app: string): Promise<string> {
  const live = newest(await client.runners({ app }));
  if (live) {
    if (shell.terminal.errorTty) shell.terminal.error(`runner ${live.id} (${live.state})\n`);
    return live.id;
  }
  const ended = newest(await client.runners({ app, all: true }));
  if (ended) {
    shell.terminal.error(`no live runner of ${app}; this is ${ended.id}, which ended last\n`);
    return ended.id;
  }
  // Tells a wrong name from an app that has not run yet.
  await client.app(app);
  throw new CommandFailure('missing', `${app} has no runner, and none ended lately`, {
    next: `Runners start when requests arrive: runmesh run ${app}`,
  });
}

/** Runner ids sort by time. */
function newest(runners: readonly RunnerView[]): RunnerView | undefined {
  return runners.reduce<RunnerView | undefined>(
    (best, runner) => (best === undefined || runner.id > best.id ? runner : best),
    undefined,
  );
}
