// Results as a person reads them: the ratio first, since it is the result.
import type { Machine } from './machine.ts';
import { describeMachine } from './machine.ts';
import type { Depth } from './row.ts';
import type { FigureResult, RowResult } from './run-row.ts';
import type { Spread } from './statistics.ts';

export interface Report {
  readonly machine: Machine;
  readonly depth: Depth;
  readonly startedAt: string;
  readonly rows: readonly RowResult[];
}

const HEAD = ['figure', 'ours / rival', 'rounds', 'better', 'ours', 'rival'];

export function describeRow(row: RowResult): string {
  const about = [
    `${row.name}: ${row.measures}`,
    `  rival   ${row.rival}`,
    `  clock   ${row.clock}`,
    `  load    ${row.load}; ${row.rounds} rounds, taking turns`,
  ];
  if (row.skipped !== undefined) return [...about, `  SKIPPED ${row.skipped}`, ''].join('\n');
  const table = columns([HEAD, ...row.figures.map(cellsOf)]).map((line) => `  ${line}`);
  const controls = row.controls.map(
    ({ name, expected, observed, passed }) =>
      `  control ${passed ? 'passed' : 'FAILED'}: ${name}: expected ${expected}, saw ${observed}`,
  );
  const notes = row.notes.map((line) => `  ${line}`);
  return [...about, '', ...table, '', ...controls, ...notes, ''].join('\n');
}

export function describeReport(report: Report): string {
  const { machine, depth, startedAt, rows } = report;
  const skipped = rows.filter((row) => row.skipped !== undefined).length;
  const failed = rows.flatMap((row) => row.controls).filter((control) => !control.passed).length;
  return [
    `machine  ${describeMachine(machine)}`,
    `run      ${depth}, ${startedAt}`,
    `${rows.length - skipped} rows, ${skipped} skipped, ${failed} controls failed`,
  ].join('\n');
}

function cellsOf(figure: FigureResult): string[] {
  const { name, unit, better, ours, rival, ratio } = figure;
  const range = ({ min, max }: Spread): string => `${number(min)}–${number(max)}`;
  const side = (value: Spread): string => `${number(value.median)} ${unit} (${range(value)})`;
  return [name, `${number(ratio.median)}×`, range(ratio), better, side(ours), side(rival)];
}

/** Three digits that mean something. */
export function number(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6));
}

function columns(lines: readonly (readonly string[])[]): string[] {
  const widths = (lines[0] ?? []).map((_, at) =>
    Math.max(...lines.map((line) => (line[at] ?? '').length)),
  );
  return lines.map((line) =>
    line
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
