// Direct calls: caller → coordinator → agent → runner, beside caller → nginx → nginx → the same runner process.
import { Load } from '../load/load.ts';
import type { LoadResult } from '../load/job.ts';
import { deployEcho, startPlatform } from '../platform.ts';
import { startNginxHops } from '../rivals/nginx.ts';
import type { Contest, Depth, Figure, Row, RowParts, Sample } from '../row.ts';
import { cpuMsOf } from '../stage.ts';
import { percentile } from '../statistics.ts';

const LANES = [1, 16] as const;
/** Calls a round, by the number of connections. */
const CALLS: Readonly<Record<Depth, Readonly<Record<(typeof LANES)[number], number>>>> = {
  full: { 1: 1_000, 16: 4_000 },
  quick: { 1: 300, 16: 1_000 },
  smoke: { 1: 10, 16: 32 },
};

const figures: Figure[] = LANES.flatMap((lanes): Figure[] => [
  { name: `p50 at ${lanes}`, unit: 'ms', better: 'lower' },
  { name: `p99 at ${lanes}`, unit: 'ms', better: 'lower' },
  { name: `calls/s at ${lanes}`, unit: '1/s', better: 'higher' },
  { name: `proxies' CPU per call at ${lanes}`, unit: 'us', better: 'lower' },
]);

async function open(parts: RowParts): Promise<Contest> {
  const { stage, depth, say } = parts;
  const platform = await startPlatform(parts);
  const runner = await deployEcho(platform, parts);
  const nginx = await startNginxHops(parts, runner.port);
  const load = new Load(stage);
  const sides = {
    ours: {
      origin: platform.url,
      path: `/run/${runner.app}/`,
      pids: [platform.coordinator.pid, platform.agent.pid],
    },
    rival: { origin: nginx.url, path: '/', pids: nginx.pids },
  };
  const counted = { ours: 0, rival: 0 };
  const arrived = { ours: 0, rival: 0 };

  const round = async (who: 'ours' | 'rival', lanes: 1 | 16, count: number): Promise<Sample> => {
    const { origin, path, pids } = sides[who];
    const cpuMs = (): number => pids.reduce((sum, pid) => sum + cpuMsOf(pid), 0);
    const before = { calls: await runner.calls(), cpu: cpuMs() };
    const expect = `"pid":${runner.pid}`;
    const job = { kind: 'direct', origin, path, count, concurrency: lanes, expect } as const;
    const result = await load.run(job);
    counted[who] += count;
    arrived[who] += (await runner.calls()) - before.calls;
    return sampleOf(result, lanes, ((cpuMs() - before.cpu) * 1000) / count);
  };
  const allLanes = async (who: 'ours' | 'rival'): Promise<Sample> => {
    const samples: Sample[] = [];
    for (const lanes of LANES) samples.push(await round(who, lanes, CALLS[depth][lanes]));
    return Object.assign({}, ...samples);
  };
  if (depth !== 'smoke') {
    say('warming up: connections, compiled code and caches of both sides');
    for (const who of ['ours', 'rival'] as const) await round(who, 16, 2_000);
  }
  return {
    figures,
    ours: () => allLanes('ours'),
    rival: () => allLanes('rival'),
    controls: async () =>
      (['ours', 'rival'] as const).map((who) => ({
        name: `every call of ${who} reached the runner, once`,
        expected: `${counted[who]} calls`,
        observed: `${arrived[who]}`,
        passed: counted[who] > 0 && counted[who] === arrived[who],
      })),
  };
}

function sampleOf({ latenciesMs, wallMs }: LoadResult, lanes: number, cpuUs: number): Sample {
  return {
    [`p50 at ${lanes}`]: percentile(latenciesMs, 0.5),
    [`p99 at ${lanes}`]: percentile(latenciesMs, 0.99),
    [`calls/s at ${lanes}`]: (latenciesMs.length * 1000) / wallMs,
    [`proxies' CPU per call at ${lanes}`]: cpuUs,
  };
}

export const directRun: Row = {
  name: 'direct-run',
  measures: 'a direct call, caller → coordinator → agent → runner and back',
  rival: 'nginx → nginx → the same runner process; connections kept on every hop',
  clock: 'from the POST written to the last byte of the answer, at the caller',
  load: (depth) =>
    LANES.map((lanes) => `${CALLS[depth][lanes]} calls over ${lanes} connection(s)`).join(', ') +
    ', 80-byte JSON in and 100 out, from a process of its own',
  rounds: { full: 7, quick: 5, smoke: 1 },
  whyNot: async (tools) => tools.lacks('nginx'),
  open,
};
