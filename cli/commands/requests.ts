// `runmesh requests`: the queue's requests, newest first, and one of them in full: where it is, why it waits, what
// happened to it.
import { InvalidArgumentError, type Command } from 'commander';
import type { RequestView } from '../client.ts';
import { durationText, momentText, sizeText } from '../quantity.ts';
import { outJson, withClient, type Shell } from '../shell.ts';
import { drawFields, drawTable, type Column } from '../table.ts';

const EXAMPLES = `
Examples:
  $ runmesh requests                    the newest requests
  $ runmesh requests --app acme/hello --limit 20
  $ runmesh requests ID                 one request in full: why it waits, how it ended
  $ runmesh requests --json | jq -r '.[] | select(.failure) | .id'`;

export function fillRequests(command: Command, shell: Shell): void {
  command
    .description('Lists queued requests, newest first, or shows one in full.')
    .argument('[id]', 'the request')
    .option('--app <name>', 'only requests to this app')
    .option('--limit <n>', 'at most so many', wholeNumber, 50)
    .option('--json', 'print JSON')
    .addHelpText('after', EXAMPLES)
    .action((id: string | undefined, options: { app?: string; limit: number; json?: boolean }) =>
      withClient(shell, async (client) => {
        const nowMs = shell.clock.now();
        if (id !== undefined) {
          const view = await client.request(id);
          return options.json ? outJson(shell, view) : shell.terminal.out(requestText(view, nowMs));
        }
        const views = await client.requests(options);
        if (options.json) return outJson(shell, views);
        const empty = 'No requests. Submit one: runmesh run owner/app --input \'{"a":1}\'';
        shell.terminal.out(drawTable(requestColumns(nowMs), views, shell.terminal, empty));
      }),
    );
}

/** A whole number above zero, from the command line. */
export function wholeNumber(text: string): number {
  if (/^[1-9][0-9]{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected a whole number above 0.');
}

function requestColumns(nowMs: number): readonly Column<RequestView>[] {
  return [
    { title: 'REQUEST', cell: ({ id }) => id },
    { title: 'APP', cell: ({ app }) => app, least: 12 },
    { title: 'STATUS', cell: statusText },
    { title: 'AGE', align: 'right', cell: (view) => durationText(nowMs - view.submittedAt) },
    { title: 'TOOK', align: 'right', cell: tookText },
    { title: 'WHY', cell: whyText, least: 16 },
    { title: 'ATTEMPTS', align: 'right', cell: ({ attempts }) => String(attempts) },
    { title: 'RUNNER', cell: ({ runnerId }) => runnerId ?? '-' },
    { title: 'PRIORITY', cell: ({ priority }) => priority },
  ];
}

function statusText({ status, httpStatus }: RequestView): string {
  return httpStatus === undefined ? status : `${status} ${httpStatus}`;
}

function tookText({ durationMs }: RequestView): string {
  return durationMs === undefined ? '-' : durationText(durationMs);
}

function whyText({ status, failure, waiting, position }: RequestView): string {
  if (failure) return `${failure.code}: ${failure.message}`;
  if (status !== 'IN_QUEUE' || !waiting) return '-';
  return `${waiting.text}${position ? `, ${position} ahead` : ''}`;
}

function requestText(view: RequestView, nowMs: number): string {
  const moment = (at: number | undefined): string | undefined =>
    at === undefined
      ? undefined
      : `${momentText(at)} (${durationText(Math.max(0, nowMs - at))} ago)`;
  const { waiting, failure, lastFailure, outputBytes } = view;
  const until = waiting?.until === undefined ? '' : `, until ${momentText(waiting.until)}`;
  const waited = (view.startedAt ?? view.endedAt ?? nowMs) - view.submittedAt;
  return drawFields([
    ['request', view.id],
    ['app', `${view.app}${view.path === '/' ? '' : view.path}`],
    ['revision', view.revision],
    ['status', statusText(view)],
    ['why it waits', waiting ? `${waiting.text}${until} (${waiting.code})` : undefined],
    ['ahead of it', view.position === undefined ? undefined : String(view.position)],
    ['failure', failure ? `${failure.code}: ${failure.message}` : undefined],
    ['last failure', lastFailure ? `${lastFailure.code}: ${lastFailure.message}` : undefined],
    ['next attempt', view.notBefore === undefined ? undefined : momentText(view.notBefore)],
    ['priority', view.priority],
    ['attempts', `${view.attempts} (${view.dispatches} sent to runners)`],
    ['runner', view.runnerId],
    ['node', view.nodeId],
    ['submitted', moment(view.submittedAt)],
    ['started', moment(view.startedAt)],
    ['ended', moment(view.endedAt)],
    ['cancel asked', moment(view.cancelRequestedAt)],
    ['waited', durationText(waited)],
    ['time on runner', view.durationMs === undefined ? undefined : durationText(view.durationMs)],
    ['input', sizeText(view.inputBytes)],
    ['output', outputBytes === undefined ? undefined : sizeText(outputBytes)],
  ]);
}
