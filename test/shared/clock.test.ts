// Time and chance: the machine's and the ones that tests own.
import t from 'tap';
import { seededChance, systemChance } from '../../shared/chance.ts';
import { backoffMs } from '../../shared/backoff.ts';
import { systemClock } from '../../shared/clock.ts';
import { chanceConformance, clockConformance } from '../conformance/clock.ts';
import { ManualClock } from '../fakes/manual-clock.ts';

void t.test('the clock of the machine', async (t) => {
  clockConformance(t, {
    clock: systemClock,
    // A real timer, because those of the clock do not keep the process alive.
    pass: (ms) => new Promise((done) => setTimeout(done, ms)),
  });
});

void t.test('the manual clock', async (t) => {
  const clock = new ManualClock();
  clockConformance(t, {
    clock,
    pass: async (ms) => {
      clock.move(ms);
      await new Promise((done) => setImmediate(done));
    },
  });
});

void t.test('the chance of the machine', async (t) => chanceConformance(t, systemChance));

void t.test('seeded chance', async (t) => {
  chanceConformance(t, seededChance(1));
  t.same(
    seededChance(5).bytes(16, 'a'),
    seededChance(5).bytes(16, 'b'),
    'the same seed, the same draws',
  );
  t.notSame(seededChance(5).bytes(16, 'a'), seededChance(6).bytes(16, 'a'));
});

void t.test('backoff: full jitter under a rising ceiling, capped, without memory', async (t) => {
  const chance = seededChance(9);
  const most = (tries: number): number =>
    Math.max(
      ...Array.from({ length: 300 }, () =>
        backoffMs({ baseMs: 100, capMs: 2_000 }, tries, chance, 'test'),
      ),
    );
  t.ok(most(0) <= 100 && most(0) > 80);
  t.ok(most(3) <= 800 && most(3) > 600);
  t.ok(most(60) <= 2_000 && most(60) > 1_800);
});
