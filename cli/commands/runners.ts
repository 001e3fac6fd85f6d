// `runmesh runners`: what runs, and where; stops or kills one.
import { Option, type Command } from 'commander';
import type { RunnerView } from '../../coordinator/core/query.ts';
import { durationText, progressText } from '../quantity.ts';
import { outJson, withClient, type Shell } from '../shell.ts';
import { drawTable, type Column } from '../table.ts';

const EXAMPLES = `
Examples:
  $ runmesh runners                    live runners of every app
  $ runmesh runners --app acme/hello --all
                                       those that ended lately, too
  $ runmesh runners stop ID            let it finish its requests, then stop it
  $ runmesh runners stop ID --kill     stop it now; its requests run again elsewhere`;

export function fillRunners(command: Command, shell: Shell): void {
  command
    .description('Lists live runners: state, node, requests in flight, and why they wait.')
    .addOption(new Option('--app <name>', 'only runners of this app'))
    .option('--all', 'also runners that ended lately')
    .option('--json', 'print JSON')
    .addHelpText('after', EXAMPLES)
    .action((options: { app?: string; all?: boolean; json?: boolean }) =>
      withClient(shell, async (client) => {
        const views = await client.runners(options);
        if (options.json) return outJson(shell, views);
        const empty = options.all
          ? 'No runners.'
          : 'No live runners. They start when requests arrive; --all shows those that ended.';
        const columns = runnerColumns(shell.clock.now());
        shell.terminal.out(drawTable(columns, views, shell.terminal, empty));
      }),
    );
  command
    .command('stop')
    .summary('stop a runner')
    .description('Drains a runner and stops it; scaling may start another in its place.')
    .argument('<id>', 'the runner')
    .option('--kill', 'do not wait for its requests')
    .option('--json', 'print JSON')
    .action((id: string, options: { kill?: boolean }, stop: Command) =>
      withClient(shell, async (client) => {
        const how = options.kill ? 'kill' : 'stop';
        await client.stopRunner(id, how);
        if (stop.optsWithGlobals<{ json?: boolean }>().json)
          return outJson(shell, { id, how, status: 'stopping' });
        shell.terminal.out(`${id} is ${options.kill ? 'being killed' : 'stopping'}.\n`);
      }),
    );
}

function runnerColumns(nowMs: number): readonly Column<RunnerView>[] {
  return [
    { title: 'RUNNER', cell: ({ id }) => id },
    { title: 'APP', cell: ({ app }) => app, least: 12 },
    { title: 'STATE', cell: ({ state }) => state },
    { title: 'FOR', align: 'right', cell: (view) => ageText(view.states.at(-1)?.at, nowMs) },
    { title: 'IN FLIGHT', align: 'right', cell: ({ inFlight, slots }) => `${inFlight}/${slots}` },
    { title: 'NODE', cell: ({ node }) => node?.name ?? '-', least: 8 },
    { title: 'WHY', cell: whyText, least: 16 },
    { title: 'GPUS', align: 'right', cell: ({ gpus }) => String(gpus.length) },
    {
      title: 'EXPIRES IN',
      align: 'right',
      cell: ({ expiresInSeconds: s }) => (s === undefined ? '-' : durationText(s * 1000)),
    },
    { title: 'UPTIME', align: 'right', cell: (view) => ageText(view.states[0]?.at, nowMs) },
    { title: 'REVISION', cell: ({ revision }) => revision },
  ];
}

function ageText(since: number | undefined, nowMs: number): string {
  return since === undefined ? '-' : durationText(Math.max(0, nowMs - since));
}

function whyText({ reason, progress, failure }: RunnerView): string {
  if (failure) return `${failure.code}: ${failure.message}`;
  if (progress) return `${progress.what} ${progressText(progress.doneBytes, progress.totalBytes)}`;
  return reason ?? '-';
}
