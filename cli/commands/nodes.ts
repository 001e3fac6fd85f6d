// `runmesh nodes`: the machines, what is free on them, and what is wrong with those that take no work.
import type { Command } from 'commander';
import type { NodeView } from '../../coordinator/core/query.ts';
import { durationText, sizeText } from '../quantity.ts';
import { outJson, withClient, type Shell } from '../shell.ts';
import { drawTable, type Column } from '../table.ts';

const EXAMPLES = `
Examples:
  $ runmesh nodes
  $ runmesh nodes --json | jq '.[] | select(.state != "ready")'`;

export function fillNodes(command: Command, shell: Shell): void {
  command
    .description('Lists the nodes: state, free and total GPUs, CPU and memory, runners, drivers.')
    .option('--json', 'print JSON')
    .addHelpText('after', EXAMPLES)
    .action((options: { json?: boolean }) =>
      withClient(shell, async (client) => {
        const views = await client.nodes();
        if (options.json) return outJson(shell, views);
        const empty = 'No nodes. Start one: runmesh agent --coordinator ws://HOST:8800';
        const columns = nodeColumns(shell.clock.now());
        shell.terminal.out(drawTable(columns, views, shell.terminal, empty));
      }),
    );
}

function nodeColumns(nowMs: number): readonly Column<NodeView>[] {
  return [
    { title: 'NAME', cell: ({ name }) => name, least: 12 },
    { title: 'STATE', cell: (view) => stateText(view, nowMs) },
    { title: 'GPUS', align: 'right', cell: gpusText },
    { title: 'CPU', align: 'right', cell: ({ cpu }) => `${tenth(cpu.free)}/${tenth(cpu.total)}` },
    { title: 'MEMORY', align: 'right', cell: memoryText },
    { title: 'RUNNERS', align: 'right', cell: ({ runners }) => String(runners) },
    { title: 'IMAGES', align: 'right', cell: ({ images }) => String(images.length) },
    { title: 'DRIVERS', cell: driversText, least: 12 },
    { title: 'NOTE', cell: noteText, least: 16 },
    { title: 'VERSION', cell: ({ version }) => version ?? '-' },
    { title: 'ID', cell: ({ id }) => id },
  ];
}

const tenth = (value: number): string => String(Math.round(value * 10) / 10);

function stateText({ state, lastSeenAt }: NodeView, nowMs: number): string {
  if (state === 'ready') return state;
  return `${state}, seen ${durationText(Math.max(0, nowMs - lastSeenAt))} ago`;
}

function gpusText({ gpus, gpusFree }: NodeView): string {
  if (!gpus) return '-';
  if (gpus.kind === 'no_answer') return 'no answer';
  return `${gpusFree}/${gpus.kind === 'none' ? 0 : gpus.gpus.length}`;
}

function memoryText({ memoryBytes: { free, total } }: NodeView): string {
  return `${sizeText(free)}/${sizeText(total)}`;
}

function driversText({ drivers }: NodeView): string {
  const usable = drivers.filter((driver) => driver.unavailable === undefined);
  return usable.map((driver) => driver.name).join(', ') || 'none';
}

/** What somebody should know or mend: no direct calls, GPUs silent, a driver that cannot run. */
function noteText({ unreachable, gpus, drivers }: NodeView): string {
  const notes = drivers.flatMap(({ name, unavailable }) =>
    unavailable === undefined ? [] : [`no ${name}: ${unavailable}`],
  );
  if (gpus?.kind === 'no_answer') notes.unshift(`GPUs: ${gpus.reason}`);
  if (unreachable !== undefined) notes.unshift(`no direct calls: ${unreachable}`);
  return notes.join('; ') || '-';
}
