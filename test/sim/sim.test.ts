// The simulator: the real shell and core under crashes, power cuts, broken links, lost nodes and refusing agents, each world
// from one seed. `SIM_SEEDS=2000` plays more. What the checkers look for is in checkers.ts; that they can find it is shown by
// worlds that are broken on purpose.
import t from 'tap';
import { layouts } from './layouts.ts';
import { play, type Played } from './play.ts';

// Other work on the machine makes it slower, never longer than this.
t.setTimeout(110_000);

const seeds = Number(process.env['SIM_SEEDS'] ?? 200);

async function each(world: string, from: number, count: number): Promise<Played[]> {
  const layout = layouts[world];
  if (!layout) throw new Error(`no world ${world}`);
  const played: Played[] = [];
  for (let seed = from; seed < from + count; seed += 1)
    played.push(await play({ seed, ...layout }));
  return played;
}

for (const [world, share] of [
  ['crashes', 0.6],
  ['power-cuts', 0.4],
] as const)
  void t.test(`${world}: nothing is lost, doubled, leaked or stuck`, async (t) => {
    const played = await each(world, 1, Math.ceil(seeds * share));
    const broken = played.filter(({ found }) => found.length > 0);
    for (const { seed, found } of broken.slice(0, 3))
      t.fail(`${found[0]} – node test/sim/replay.ts --seed ${seed} --world ${world}`);
    t.equal(broken.length, 0, `${played.length} worlds`);
    const requests = played.reduce((sum, one) => sum + one.requests, 0);
    t.ok(requests > 10 * played.length, `${requests} requests`);
  });

void t.test('the checkers find a disk that lies (Q1)', async (t) => {
  const played = await each('lying-disk', 1, 3);
  for (const { found } of played) t.match(found[0], /^Q1/);
});

void t.test('the checkers find agents that never say a result again (liveness)', async (t) => {
  const played = await each('forgetful-agents', 1, 2);
  const found = played.filter((one) => one.found.length > 0);
  t.ok(found.length >= 1, `${found.length} of ${played.length} worlds`);
  for (const one of found) t.match(one.found[0], /^(liveness|leak|A1)/);
});

void t.test('the same seed is the same world', async (t) => {
  const [first] = await each('crashes', 7, 1);
  const [second] = await each('crashes', 7, 1);
  t.equal(first?.steps, second?.steps);
  t.same(first?.trace, second?.trace);
});
