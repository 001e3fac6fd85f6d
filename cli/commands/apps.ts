// `runmesh apps`: what is deployed. Columns are those of fal's `apps list` that exist here; the ones that change from
// minute to minute (runners, queued) stand first, so that a narrow terminal keeps them.
import type { Command } from 'commander';
import type { AppView } from '../../coordinator/core/query.ts';
import type { AppSpec, Machine } from '../../shared/app-spec.ts';
import type { RevisionView } from '../client.ts';
import { durationText, momentText, sizeText } from '../quantity.ts';
import { outJson, withClient, type Shell } from '../shell.ts';
import { drawFields, drawTable, type Column } from '../table.ts';

const EXAMPLES = `
Examples:
  $ runmesh apps                       everything that is deployed
  $ runmesh apps acme/hello            one app in full
  $ runmesh apps revisions acme/hello  what was deployed, newest first
  $ runmesh apps --json | jq -r '.[].app'`;

export function fillApps(command: Command, shell: Shell): void {
  command
    .description('Lists the deployed apps, or shows one in full.')
    .argument('[name]', 'owner/alias')
    .option('--json', 'print JSON')
    .addHelpText('after', EXAMPLES)
    .action((name: string | undefined, options: { json?: boolean }) =>
      withClient(shell, async (client) => {
        if (name !== undefined) {
          const view = await client.app(name);
          if (options.json) return outJson(shell, view);
          return shell.terminal.out(appText(view));
        }
        const views = await client.apps();
        if (options.json) return outJson(shell, views);
        const empty = 'No apps. Deploy one: runmesh deploy app.yaml';
        shell.terminal.out(drawTable(COLUMNS, views, shell.terminal, empty));
      }),
    );
  command
    .command('revisions')
    .summary('list the revisions of an app')
    .description('Lists the revisions of an app, newest first.')
    .argument('<name>', 'owner/alias')
    .option('--json', 'print JSON')
    .action((name: string, _: unknown, revisions: Command) =>
      withClient(shell, async (client) => {
        const views = await client.revisions(name);
        if (revisions.optsWithGlobals<{ json?: boolean }>().json) return outJson(shell, views);
        shell.terminal.out(drawTable(REVISION_COLUMNS, views, shell.terminal, 'No revisions.'));
      }),
    );
}

const seconds = (value: number): string => `${value}s`;

const SPEC_COLUMNS: readonly Column<{ spec: AppSpec }>[] = [
  { title: 'MIN', align: 'right', cell: ({ spec }) => String(spec.scaling.min_concurrency) },
  { title: 'MAX', align: 'right', cell: ({ spec }) => String(spec.scaling.max_concurrency) },
  { title: 'KEEP ALIVE', align: 'right', cell: ({ spec }) => seconds(spec.scaling.keep_alive) },
  { title: 'MULTIPLEX', align: 'right', cell: ({ spec }) => String(spec.scaling.max_multiplexing) },
  { title: 'MACHINE', cell: ({ spec }) => machineText(spec), least: 8 },
  { title: 'BUFFER', cell: ({ spec }) => bufferText(spec) },
  { title: 'DELAY', align: 'right', cell: ({ spec }) => seconds(spec.scaling.scaling_delay) },
  {
    title: 'REQUEST TIMEOUT',
    align: 'right',
    cell: ({ spec }) => seconds(spec.timeouts.request_timeout),
  },
  {
    title: 'STARTUP TIMEOUT',
    align: 'right',
    cell: ({ spec }) => seconds(spec.timeouts.startup_timeout),
  },
];

const COLUMNS: readonly Column<AppView>[] = [
  { title: 'NAME', cell: ({ app }) => app, least: 16 },
  { title: 'REV', align: 'right', cell: ({ revisionNumber }) => String(revisionNumber) },
  {
    title: 'RUNNERS',
    align: 'right',
    cell: ({ runners, wanted }) => (runners === wanted ? String(runners) : `${runners}/${wanted}`),
  },
  { title: 'QUEUED', align: 'right', cell: ({ queued }) => String(queued) },
  { title: 'IN FLIGHT', align: 'right', cell: ({ inFlight }) => String(inFlight) },
  ...SPEC_COLUMNS,
  { title: 'AUTH', cell: ({ spec }) => spec.auth },
];

const REVISION_COLUMNS: readonly Column<RevisionView>[] = [
  { title: 'REV', align: 'right', cell: ({ number }) => String(number) },
  { title: 'REVISION', cell: ({ revision }) => revision },
  { title: 'CREATED', cell: ({ createdAt }) => momentText(createdAt) },
  { title: 'SOURCE', cell: ({ spec }) => sourceText(spec), least: 16 },
  ...SPEC_COLUMNS,
];

function sourceText(spec: AppSpec): string {
  return spec.image ?? `${spec.dir ?? '.'}: ${(spec.command ?? []).join(' ')}`;
}

// The first of an ordered list counts (app-spec.ts: firstMachine); importing it would load zod into every listing.
/** `2×H100 ≥40 GiB, 4 cpu, 16 GiB`. */
function machineText(spec: AppSpec): string {
  const [first] = [spec.machine].flat() as Machine[];
  const { gpus, gpu, vram, cpu, memory } = first ?? { gpus: 0 };
  const parts = [
    gpus === 0
      ? 'any'
      : `${gpus}×${gpu ?? 'GPU'}${vram === undefined ? '' : ` ≥${sizeText(vram)}`}`,
    ...(cpu === undefined ? [] : [`${cpu} cpu`]),
    ...(memory === undefined ? [] : [sizeText(memory)]),
  ];
  return parts.join(', ');
}

/** As fal shows it: `20%, min 2`. */
function bufferText({ scaling }: AppSpec): string {
  const { concurrency_buffer: least, concurrency_buffer_perc: percent } = scaling;
  return percent > 0 ? `${percent}%, min ${least}` : String(least);
}

function appText(view: AppView): string {
  const { spec } = view;
  return drawFields([
    ['app', view.app],
    ['revision', `${view.revisionNumber} (${view.revision})`],
    ['source', sourceText(spec)],
    ['image digest', view.imageDigest],
    ['runners', `${view.runners}, wanted ${view.wanted}`],
    ['queued', String(view.queued)],
    ['in flight', String(view.inFlight)],
    ['waiting for', view.waiting?.text],
    ['failed starts', view.failures > 0 ? String(view.failures) : undefined],
    ['machine', machineText(spec)],
    [
      'concurrency',
      `${spec.scaling.min_concurrency} to ${spec.scaling.max_concurrency}, buffer ${bufferText(spec)}`,
    ],
    ['keep alive', durationText(spec.scaling.keep_alive * 1000)],
    ['multiplexing', String(spec.scaling.max_multiplexing)],
    ['request timeout', durationText(spec.timeouts.request_timeout * 1000)],
    ['startup timeout', durationText(spec.timeouts.startup_timeout * 1000)],
    ['health', `${spec.health.method} ${spec.health.path} on port ${spec.port}`],
    ['auth', spec.auth],
    ['inactive fields', view.inactive.length > 0 ? view.inactive.join(', ') : undefined],
    ['created', momentText(view.createdAt)],
    ['updated', momentText(view.updatedAt)],
  ]);
}
