// `npm run tools [group…]`: finds or fetches the Debian programs and prints where each one is.
// Exit code 1 when one is missing.

import { catalog, type Group } from './catalog.ts';
import { tools } from './tools.ts';

const known = [...new Set(Object.values(catalog).map((wanted) => wanted.group))];
const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !known.some((group) => group === name));
if (unknown.length > 0) {
  console.error(`no group ${unknown.join(', ')}; there are ${known.join(', ')}`);
  process.exit(64);
}
const groups: Group[] = known.filter((group) => asked.length === 0 || asked.includes(group));
const found = await tools(groups, { say: (line) => console.error(`tools: ${line}`), retry: true });

const rows = [
  ...found.found.map(({ name, group, from, path }) => [name, group, from, path]),
  ...found.missing.map(({ name, group, reason }) => [name, group, 'MISSING', reason]),
];
const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
for (const row of rows) {
  console.log(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '));
}
process.exitCode = found.missing.length === 0 ? 0 : 1;
