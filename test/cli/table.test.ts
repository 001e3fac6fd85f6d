// How listings, sizes, durations and foreign text are drawn.
import t from 'tap';
import { durationText, momentText, progressText, sizeText } from '../../cli/quantity.ts';
import { drawTable, type Column } from '../../cli/table.ts';
import { cutToWidth, withoutControls } from '../../cli/terminal.ts';

interface Row {
  name: string;
  count: number;
  why: string;
}
const columns: Column<Row>[] = [
  { title: 'NAME', cell: ({ name }) => name, least: 6 },
  { title: 'COUNT', align: 'right', cell: ({ count }) => String(count) },
  { title: 'WHY', cell: ({ why }) => why, least: 8 },
  { title: 'LAST', cell: () => 'fixed' },
];
const rows: Row[] = [
  { name: 'a', count: 1, why: 'short' },
  { name: 'a-much-longer-name', count: 12_345, why: 'because\nof\tthings\u001b[2J' },
];
const piped = { columns: undefined, colour: false };

t.test('a table', async (t) => {
  t.equal(
    drawTable(columns, rows, piped, 'none'),
    [
      'NAME                COUNT  WHY                  LAST',
      'a                       1  short                fixed',
      'a-much-longer-name  12345  because ⏎ of things  fixed',
      '',
    ].join('\n'),
  );
  t.equal(drawTable(columns, [], piped, 'none'), 'none\n');
  for (const width of [60, 50, 40, 30, 20, 10, 3]) {
    const lines = drawTable(columns, rows, { columns: width, colour: false }, '').split('\n');
    const table = lines.filter((line) => !line.startsWith('(too narrow'));
    t.ok(
      table.every((line) => [...line].length <= Math.max(width, 6)),
      `fits ${width} columns, or its first column's least`,
    );
  }
  const narrow = drawTable(columns, rows, { columns: 20, colour: false }, '');
  t.match(narrow, '(too narrow for: WHY, LAST; see --json)');
  t.match(drawTable(columns, rows, { columns: 99, colour: true }, ''), /^\u001b\[1mNAME/);
});

t.test('sizes, durations, moments', async (t) => {
  const sizes: [number, string][] = [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [2 ** 20 - 1, '1 MiB'],
    [40 * 2 ** 30, '40 GiB'],
    [3000 * 2 ** 40, '3000 TiB'],
  ];
  for (const [bytes, text] of sizes) t.equal(sizeText(bytes), text);
  t.equal(progressText(40 * 2 ** 20, 120 * 2 ** 20), '40/120 MiB');
  t.equal(progressText(512, 2 ** 20), '512 B of 1 MiB');
  t.equal(progressText(2048, undefined), '2 KiB');
  const durations: [number, string][] = [
    [-5, '0 ms'],
    [850, '850 ms'],
    [999.9, '1.0 s'],
    [4_200, '4.2 s'],
    [9_960, '10 s'],
    [59_700, '1m 00s'],
    [185_000, '3m 05s'],
    [7_800_000, '2h 10m'],
    [442_800_000, '5d 3h'],
  ];
  for (const [ms, text] of durations) t.equal(durationText(ms), text);
  t.equal(momentText(1_795_000_000_123), '2026-11-18T11:06:40Z');
});

t.test('foreign text cannot steer a terminal', async (t) => {
  t.equal(withoutControls('a\u001b[31mred\u001b[0m\u001b]0;title\u0007b'), 'aredb');
  t.equal(withoutControls('x\r\ny\rz\u0000\u009b2J\u202e\n\tend'), 'x\nyz2J\n\tend');
  t.equal(cutToWidth('abcdef', 4), 'abc…');
  t.equal(cutToWidth('abc', 3), 'abc');
  t.equal(cutToWidth('abc', 1), '…');
});
