// `npm run bench`: every figure beside its rival, in one run, on the same work. Ratios are the result.
//
//   npm run bench [-- NAME…] [--json FILE] [--quick] [--list] [--profile DIR]
//
// Exit code 0 when all rows ran and their controls passed, 1 when not (a skipped row is not a failure), 64 for wrong
// use, 130 after Ctrl-C, when everything that was started is gone.
import { mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { tools } from '../tools/tools.ts';
import { machineAt } from './machine.ts';
import { describeReport, describeRow, type Report } from './report.ts';
import { rows } from './rows.ts';
import { runRow, type RowResult } from './run-row.ts';

const EX_USAGE = 64;
const EX_INTERRUPTED = 130;

const options = {
  json: { type: 'string' },
  quick: { type: 'boolean', default: false },
  list: { type: 'boolean', default: false },
  profile: { type: 'string' },
} as const;

function parsed(): ReturnType<typeof parse> | string {
  try {
    const result = parse();
    const unknown = result.positionals.filter((name) => rows.every((row) => row.name !== name));
    if (unknown.length === 0) return result;
    return `no row ${unknown.join(', ')}; there are ${rows.map((row) => row.name).join(', ')}`;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}

const parse = () => parseArgs({ options, allowPositionals: true });

async function bench({ values, positionals }: ReturnType<typeof parse>): Promise<void> {
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      if (!stopping.signal.aborted) process.stderr.write('bench: stopping what was started …\n');
      stopping.abort(new Error(`stopped by ${signal}`));
    });
  const say = (line: string): void => void process.stderr.write(`bench: ${line}\n`);
  const debian = await tools(['runtime', 'images', 'bench'], { say });
  const depth = values.quick ? 'quick' : 'full';
  if (values.profile !== undefined) mkdirSync(values.profile, { recursive: true });
  const profiles = values.profile === undefined ? undefined : resolve(values.profile);
  const startedAt = new Date().toISOString();
  const done: RowResult[] = [];
  for (const row of rows.filter((r) => positionals.length === 0 || positionals.includes(r.name))) {
    say(`${row.name} …`);
    try {
      const { signal } = stopping;
      const result = await runRow(row, { tools: debian, depth, profiles, signal, say });
      done.push(result);
      process.stdout.write(`${describeRow(result)}\n`);
      if (result.controls.some((control) => !control.passed)) process.exitCode = 1;
    } catch (thrown) {
      process.exitCode = stopping.signal.aborted ? EX_INTERRUPTED : 1;
      if (stopping.signal.aborted) break;
      say(`${row.name} failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
    }
  }
  const report: Report = { machine: machineAt(tmpdir()), depth, startedAt, rows: done };
  process.stdout.write(`${describeReport(report)}\n`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
}

const asked = parsed();
if (typeof asked === 'string') {
  process.stderr.write(`bench: ${asked}\n`);
  process.exitCode = EX_USAGE;
} else if (asked.values.list) {
  for (const row of rows) process.stdout.write(`${row.name.padEnd(16)}${row.measures}\n`);
} else {
  await bench(asked);
}
