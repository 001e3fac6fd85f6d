// H2: a commit that fails under load throws the core away; what was acknowledged is there, what was not is told as unknown, and
// the coordinator serves on at the next epoch. Over the real LevelDB, with a store that fails as a disk would.
import { join } from 'node:path';
import t from 'tap';
import { openLevelStore } from '../../coordinator/store/level-store.ts';
import type { Batch, Durability, Store } from '../../coordinator/store/store.ts';
import { Failure } from '../../shared/failure.ts';
import type { RequestId } from '../../shared/ids.ts';
import { CoreWorld } from '../fakes/core-world.ts';

/** Fails the commit whose number comes up, after or before it reached the disk; dead from then on, as G2 wants it. */
function failing(store: Store, plan: { failAt: number; written: boolean; count: number }): Store {
  let dead = false;
  return {
    get: (key) => store.get(key),
    getMany: (names) => store.getMany(names),
    scan: (range, options) => store.scan(range, options),
    acquire: (partitions, holder, now) => store.acquire(partitions, holder, now),
    close: () => store.close(),
    async commit(batches: readonly Batch[], durability: Durability): Promise<void> {
      plan.count += 1;
      if (plan.count === plan.failAt) dead = true;
      if (!dead || plan.written) await store.commit(batches, durability);
      if (dead)
        throw new Failure('STORE_FAILED', 'the disk refused a write', { cause: new Error('EIO') });
    },
  };
}

for (const written of [false, true])
  void t.test(
    `a commit fails under load, ${written ? 'after' : 'before'} it reached the disk`,
    async (t) => {
      const folder = join(t.testdir(), 'queue');
      const plan = { failAt: 0, written, count: 0 };
      const w = new CoreWorld(async () => failing(await openLevelStore(folder), plan));
      await w.shell.start();
      await w.deploy();
      plan.failAt = plan.count + 6;
      const acked: RequestId[] = [];
      let unknown = 0;
      for (let wave = 0; wave < 20; wave += 1) {
        const wished = Array.from({ length: 25 }, () =>
          w.submit().then(
            (id) => acked.push(id),
            (failure: Failure) => {
              t.equal(failure.code, 'STORE_FAILED');
              unknown += 1;
            },
          ),
        );
        await Promise.all(wished);
        if (w.lost > 0 && w.lives === 1) {
          // The next wave waits until a core serves again.
          while (w.lives === 1) await new Promise((done) => setTimeout(done, 10));
        }
      }
      t.equal(w.lost, 1, 'one core was thrown away');
      t.equal(w.lives, 2, 'and one made anew');
      t.ok(unknown >= 25, `${unknown} were told that the outcome is unknown`);
      t.equal(w.core.state.epoch, 2, 'at the next epoch');
      for (const id of acked) t.equal((await w.record(id)).state.kind, 'ready');
      const queued = w.query('app', { app: 'acme/cutout' })?.queued ?? 0;
      t.ok(
        queued >= acked.length && queued <= acked.length + unknown,
        `${acked.length} acknowledged, ${queued} queued`,
      );
      t.equal(queued > acked.length, written, 'an error means unknown, never not written');
      await w.shell.stop();
    },
  );

void t.test('a second coordinator on the same folder is refused, and says which', async (t) => {
  const folder = join(t.testdir(), 'queue');
  const first = new CoreWorld(() => openLevelStore(folder));
  await first.shell.start();
  const second = new CoreWorld(() => openLevelStore(folder));
  await t.rejects(second.shell.start(), { code: 'STORE_LOCKED', message: new RegExp(folder) });
  await first.shell.stop();
});
