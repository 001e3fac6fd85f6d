// Draws listings. Columns are as wide as their widest cell; on a terminal that is too narrow the columns that allow it
// are cut with `…` and, when even that does not do, whole columns go from the right and a line says which. A piped
// table is never cut. Cells are made safe to print here, so no caller can forget it.
import { coloured, cutToWidth, withoutControls, type Terminal } from './terminal.ts';

export interface Column<Row> {
  title: string;
  cell: (row: Row) => string;
  align?: 'right';
  /** May be cut down to this many characters when the terminal is narrow. */
  least?: number;
}

const GAP = 2;

/** The table as text that ends in a newline; `empty` when there are no rows. */
export function drawTable<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  terminal: Pick<Terminal, 'columns' | 'colour'>,
  empty: string,
): string {
  if (rows.length === 0) return `${empty}\n`;
  const cells = rows.map((row) => columns.map((column) => oneLine(column.cell(row))));
  const natural = columns.map((column, at) =>
    Math.max(length(column.title), ...cells.map((line) => length(line[at] ?? ''))),
  );
  const { widths, hidden } = fit(columns, natural, terminal.columns);
  const line = (texts: readonly string[]): string =>
    widths
      .map((width, at) => pad(texts[at] ?? '', width, columns[at]?.align))
      .join(' '.repeat(GAP))
      .trimEnd();
  const head = line(columns.map((column) => column.title));
  const body = cells.map(line);
  const foot = hidden.length === 0 ? [] : [`(too narrow for: ${hidden.join(', ')}; see --json)`];
  return [coloured(terminal, 'bold', head), ...body, ...foot].join('\n') + '\n';
}

/** `name: value` lines under each other, for one thing in full. Undefined values are left out. */
export function drawFields(fields: readonly (readonly [string, string | undefined])[]): string {
  const shown = fields.filter((field): field is [string, string] => field[1] !== undefined);
  const width = Math.max(0, ...shown.map(([name]) => length(name))) + 1;
  return shown.map(([name, value]) => `${`${name}:`.padEnd(width)} ${oneLine(value)}\n`).join('');
}

function oneLine(text: string): string {
  return withoutControls(text)
    .replace(/\s*\n\s*/g, ' ⏎ ')
    .replaceAll('\t', ' ')
    .trim();
}

/** Characters, counted as one column each: names and ids are ASCII by their own rules. */
function length(text: string): number {
  return [...text].length;
}

function pad(text: string, width: number, align: 'right' | undefined): string {
  const cut = cutToWidth(text, width);
  const space = ' '.repeat(Math.max(0, width - length(cut)));
  return align === 'right' ? space + cut : cut + space;
}

/** Shrinks the widest shrinkable column by one until all fit; then drops columns from the right. */
function fit<Row>(
  columns: readonly Column<Row>[],
  natural: readonly number[],
  available: number | undefined,
): { widths: number[]; hidden: string[] } {
  const widths = [...natural];
  const hidden: string[] = [];
  if (available === undefined) return { widths, hidden };
  const total = (): number =>
    widths.reduce((sum, width) => sum + width, 0) + GAP * (widths.length - 1);
  while (total() > available) {
    const widest = widths.reduce(
      (best, width, at) =>
        width > (columns[at]?.least ?? width) && width > (widths[best] ?? 0) * Number(best >= 0)
          ? at
          : best,
      -1,
    );
    if (widest >= 0) {
      widths[widest] = (widths[widest] ?? 1) - 1;
    } else if (widths.length > 1) {
      widths.pop();
      hidden.unshift(columns[widths.length]?.title ?? '');
    } else {
      break;
    }
  }
  return { widths, hidden };
}
