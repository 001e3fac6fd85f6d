// What every clock and every source of chance must do.
import type { Test } from 'tap';
import type { Chance } from '../../shared/chance.ts';
import { deadline, sleep, type Clock } from '../../shared/clock.ts';

export interface ClockUnderTest {
  clock: Clock;
  /** Lets this much time pass. */
  pass(ms: number): Promise<void>;
}

export function clockConformance(t: Test, { clock, pass }: ClockUnderTest): void {
  void t.test('wall and monotonic time both go on by what passes', async (t) => {
    const [now, elapsed] = [clock.now(), clock.elapsed()];
    await pass(30);
    t.ok(clock.now() - now >= 25 && clock.elapsed() - elapsed >= 25);
    t.ok(now > Date.UTC(2020, 0), 'wall time is since 1970');
  });

  void t.test(
    'timers fire once, in order, not before their time, and not when cancelled',
    async (t) => {
      const fired: string[] = [];
      const began = clock.elapsed();
      clock.after(40, () => fired.push('late'));
      clock.after(10, () => {
        t.ok(clock.elapsed() - began >= 9, 'not too early');
        fired.push('early');
      });
      const cancelled = clock.after(20, () => fired.push('never'));
      cancelled.cancel();
      cancelled.cancel();
      await pass(200);
      t.same(fired, ['early', 'late']);
    },
  );

  void t.test('a delay in the past or beyond every timer is taken as it can be', async (t) => {
    const fired: string[] = [];
    clock.after(-5, () => fired.push('past'));
    const far = clock.after(2 ** 40, () => fired.push('far'));
    await pass(30);
    far.cancel();
    t.same(fired, ['past']);
  });

  void t.test(
    'sleep ends by time or by its signal, deadline by time or by its parent',
    async (t) => {
      const slept = sleep(clock, 20);
      await pass(60);
      await slept;
      const stop = new AbortController();
      const woken = sleep(clock, 60_000, stop.signal);
      stop.abort(new Error('enough'));
      await t.rejects(woken, { message: 'enough' });
      await t.rejects(sleep(clock, 1, stop.signal), { message: 'enough' }, 'already aborted');
      const late = deadline(clock, 20, new Error('late'));
      const freed = deadline(clock, 20, new Error('late'));
      freed.cancel();
      await pass(60);
      t.match(late.signal.reason, { message: 'late' });
      t.notOk(freed.signal.aborted);
      t.match(deadline(clock, 60_000, new Error('late'), stop.signal).signal.reason, {
        message: 'enough',
      });
    },
  );
}

export function chanceConformance(t: Test, chance: Chance): void {
  void t.test('bytes have their size, fractions their range, and both vary', async (t) => {
    for (const size of [0, 1, 8, 1000]) t.equal(chance.bytes(size, 'test').byteLength, size);
    const draws = Array.from({ length: 2_000 }, () => chance.fraction('test'));
    t.ok(draws.every((draw) => draw >= 0 && draw < 1));
    const mean = draws.reduce((sum, draw) => sum + draw, 0) / draws.length;
    t.ok(mean > 0.45 && mean < 0.55, `mean ${mean}`);
    const texts = new Set(Array.from({ length: 1_000 }, () => chance.bytes(8, 'test').join()));
    t.equal(texts.size, 1_000, 'no two alike');
  });
}
