// A durable request from submit to result, beside BullMQ on Redis behind an HTTP front with the same routes. Every fsync
// of ours (coordinator and agent) and of Redis takes a millisecond longer.
import { Load } from '../load/load.ts';
import type { LoadJob } from '../load/job.ts';
import { deployEcho, startPlatform } from '../platform.ts';
import { startBullQueue, whyNoBullQueue } from '../rivals/bull-queue.ts';
import type { Contest, Control, Depth, Figure, Row, RowParts, Sample } from '../row.ts';
import { DELAY_MS, SlowFsync } from '../slow-fsync.ts';
import { cpuMsOf, type Program } from '../stage.ts';
import { percentile } from '../statistics.ts';

const MANY = 64;
/** Requests a round, one after the other and over many connections. */
const REQUESTS: Readonly<Record<Depth, { readonly one: number; readonly many: number }>> = {
  full: { one: 100, many: 2_000 },
  quick: { one: 40, many: 500 },
  smoke: { one: 5, many: 64 },
};

const figures: Figure[] = [
  { name: 'p50 at 1', unit: 'ms', better: 'lower' },
  { name: 'p99 at 1', unit: 'ms', better: 'lower' },
  { name: 'fsyncs per request at 1', unit: '', better: 'lower' },
  { name: `requests/s at ${MANY}`, unit: '1/s', better: 'higher' },
  { name: `p50 at ${MANY}`, unit: 'ms', better: 'lower' },
  { name: `p99 at ${MANY}`, unit: 'ms', better: 'lower' },
  { name: `fsyncs per request at ${MANY}`, unit: '', better: 'lower' },
  { name: `CPU per request at ${MANY}`, unit: 'us', better: 'lower' },
];

/** One of the queues: where its callers go, and the programs whose fsyncs are counted. */
interface Side {
  readonly name: string;
  readonly origin: string;
  /** The one that must have a request on disk before it says so, and a result. */
  readonly keeper: string;
  readonly synced: readonly string[];
  /** Everything but the runner and the callers. */
  readonly programs: readonly Program[];
}

/** Of the keeper, in rounds with one request at a time. */
interface Counted {
  requests: number;
  fsyncs: number;
}

/** One at a time, no two share a sync: one for the submit, one for the result that was seen. */
const SYNCS_PER_REQUEST = 2;

async function open(parts: RowParts): Promise<Contest> {
  const { stage, tools, depth, say } = parts;
  const slow = await SlowFsync.build(tools, stage.folder);
  const platform = await startPlatform(parts, (program) => slow.env(program));
  const runner = await deployEcho(platform, parts);
  const path = `/queue/${runner.app}`;
  const startRival = async (name: string, appendfsync: 'always' | 'no'): Promise<Side> => {
    const redisEnv = slow.env(name);
    const settings = { name, appendfsync, runnerPort: runner.port, concurrency: MANY, redisEnv };
    const { url: origin, programs } = await startBullQueue(parts, settings);
    return { name, origin, keeper: name, synced: [name], programs };
  };
  const ours: Side = {
    name: 'ours',
    origin: platform.url,
    keeper: 'coordinator',
    synced: ['coordinator', 'agent'],
    programs: [platform.coordinator, platform.agent],
  };
  const rival = await startRival('rival', 'always');
  const load = new Load(stage);
  const expect = `"pid":${runner.pid}`;
  const counted: Record<string, Counted> = {};

  const submit = async (side: Side, count: number, concurrency: number): Promise<Sample> => {
    const { origin, keeper } = side;
    const fsyncsOf = (names: readonly string[]): number =>
      names.reduce((sum, name) => sum + slow.count(name), 0);
    const cpuMs = (): number => side.programs.reduce((sum, { pid }) => sum + cpuMsOf(pid), 0);
    const before = { all: fsyncsOf(side.synced), kept: slow.count(keeper), cpuMs: cpuMs() };
    const job: LoadJob = { kind: 'submit', origin, path, count, concurrency, expect };
    const { latenciesMs, wallMs } = await load.run(job);
    const fsyncs = fsyncsOf(side.synced) - before.all;
    const total = (counted[side.name] ??= { requests: 0, fsyncs: 0 });
    if (concurrency === 1) {
      total.requests += count;
      total.fsyncs += slow.count(keeper) - before.kept;
    }
    return {
      [`p50 at ${concurrency}`]: percentile(latenciesMs, 0.5),
      [`p99 at ${concurrency}`]: percentile(latenciesMs, 0.99),
      [`requests/s at ${concurrency}`]: (count * 1000) / wallMs,
      [`fsyncs per request at ${concurrency}`]: fsyncs / count,
      [`CPU per request at ${concurrency}`]: ((cpuMs() - before.cpuMs) * 1000) / count,
    };
  };
  const both = async (side: Side): Promise<Sample> => ({
    ...(await submit(side, REQUESTS[depth].one, 1)),
    ...(await submit(side, REQUESTS[depth].many, MANY)),
  });
  if (depth !== 'smoke') {
    say('warming up: connections, compiled code and caches of both sides');
    for (const side of [ours, rival]) await submit(side, 500, MANY);
  }
  return {
    figures,
    ours: () => both(ours),
    rival: () => both(rival),
    controls: async () => {
      // The same look at a queue that is known not to be durable: it must be seen as that.
      const careless = await startRival('careless', 'no');
      await submit(careless, REQUESTS[depth].one, 1);
      return [
        ...[ours, rival].map((side) => durability(side.keeper, counted[side.name], true)),
        durability('the rival with appendfsync no', counted['careless'], false),
      ];
    },
    notes: () => [
      'ours cannot be told not to sync, so only the rival is also looked at without (last control)',
    ],
  };
}

function durability(who: string, counted: Counted | undefined, isDurable: boolean): Control {
  const { requests, fsyncs } = counted ?? { requests: 0, fsyncs: 0 };
  const needed = requests * SYNCS_PER_REQUEST;
  const wanted = isDurable ? `at least ${needed}` : `fewer than ${needed}`;
  return {
    name: `delayed fsyncs of ${who} for ${requests} requests, one at a time`,
    expected: wanted,
    observed: String(fsyncs),
    passed: requests > 0 && fsyncs >= needed === isDurable,
  };
}

export const durableSubmit: Row = {
  name: 'durable-submit',
  measures: 'a durable request, from submit to its result',
  rival: 'fastify + BullMQ + Redis (appendfsync always), worker calls the same runner process',
  clock:
    'from the POST written, over the answer with the id and the status stream’s end, to the last byte of the result',
  load: (depth) =>
    `${REQUESTS[depth].one} requests one at a time, ${REQUESTS[depth].many} over ${MANY} connections, ` +
    `80-byte JSON; every fsync takes ${DELAY_MS} ms longer on both sides`,
  rounds: { full: 7, quick: 5, smoke: 1 },
  whyNot: async (tools) => tools.lacks('redis-server', 'tcc') || whyNoBullQueue(),
  open,
};
