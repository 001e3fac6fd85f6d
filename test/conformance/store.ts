// What every store must do, run against LevelDB and against its in-memory twin.
import type { Test } from 'tap';
import type { Store } from '../../coordinator/store/store.ts';

export interface StoreUnderTest {
  open(): Promise<Store>;
}

const value = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
const text = (bytes: Uint8Array | undefined): string | undefined =>
  bytes ? Buffer.from(bytes).toString() : undefined;

async function all(
  store: Store,
  gte: string,
  lt: string,
  options = {},
): Promise<[string, string | undefined][]> {
  const found: [string, string | undefined][] = [];
  for await (const [key, bytes] of store.scan({ gte, lt }, options)) found.push([key, text(bytes)]);
  return found;
}

/** `make` gives a fresh disk; each `open` of it is a restart. */
export function storeConformance(t: Test, make: () => Promise<StoreUnderTest>): void {
  void t.test('reads back what was committed, in order, forwards and backwards', async (t) => {
    const store = await (await make()).open();
    const epoch = await store.acquire([1], 'me', 0);
    const operations = ['b', 'a', 'd', 'c'].map(
      (key) => ({ kind: 'put', key: `k/${key}`, value: value(key) }) as const,
    );
    await store.commit([{ partition: 1, epoch, operations }], 'sync');
    t.equal(text(await store.get('k/a')), 'a');
    t.equal(await store.get('k/z'), undefined);
    t.same((await store.getMany(['k/c', 'k/z', 'k/b'])).map(text), ['c', undefined, 'b']);
    t.same(await all(store, 'k/', 'k0'), [
      ['k/a', 'a'],
      ['k/b', 'b'],
      ['k/c', 'c'],
      ['k/d', 'd'],
    ]);
    t.same(await all(store, 'k/b', 'k/d', { limit: 1, reverse: true }), [['k/c', 'c']]);
    await store.commit(
      [{ partition: 1, epoch, operations: [{ kind: 'delete', key: 'k/a' }] }],
      'soft',
    );
    t.equal(await store.get('k/a'), undefined);
    await store.close();
  });

  void t.test(
    'one commit is all or nothing over partitions, and what was acknowledged is there after a restart',
    async (t) => {
      const disk = await make();
      const store = await disk.open();
      const epoch = await store.acquire([1, 2], 'me', 0);
      await Promise.all(
        Array.from({ length: 500 }, (_, at) =>
          store.commit(
            [
              {
                partition: 1,
                epoch,
                operations: [{ kind: 'put', key: `01/x/${at}`, value: value('x') }],
              },
              {
                partition: 2,
                epoch,
                operations: [{ kind: 'put', key: `02/x/${at}`, value: value('y') }],
              },
            ],
            at % 2 === 0 ? 'sync' : 'soft',
          ),
        ),
      );
      await store.close();
      const again = await disk.open();
      t.equal((await all(again, '01/x/', '01/x0')).length, 500);
      t.equal((await all(again, '02/x/', '02/x0')).length, 500);
      await again.close();
    },
  );

  void t.test('a commit with an old epoch is refused and writes nothing', async (t) => {
    const disk = await make();
    const store = await disk.open();
    const old = await store.acquire([1, 2], 'first', 0);
    const newer = await store.acquire([1], 'second', 0);
    t.ok(newer > old);
    const put = (partition: number, epoch: number, key: string) =>
      store.commit(
        [{ partition, epoch, operations: [{ kind: 'put', key, value: value('x') }] }],
        'sync',
      );
    await t.rejects(put(1, old, '01/stale'), { code: 'STORE_FENCED' });
    await put(2, old, '02/mine');
    await put(1, newer, '01/mine');
    t.equal(await store.get('01/stale'), undefined);
    await t.rejects(
      store.commit(
        [
          {
            partition: 2,
            epoch: old,
            operations: [{ kind: 'put', key: '02/half', value: value('x') }],
          },
          {
            partition: 1,
            epoch: old,
            operations: [{ kind: 'put', key: '01/half', value: value('x') }],
          },
        ],
        'sync',
      ),
      { code: 'STORE_FENCED' },
    );
    t.equal(await store.get('02/half'), undefined, 'nothing of a batch that is partly fenced');
    await store.close();
    const again = await disk.open();
    t.ok((await again.acquire([1, 2], 'third', 0)) > newer, 'the epoch rises over restarts');
    await again.close();
  });

  void t.test('a second opener is refused', async (t) => {
    const disk = await make();
    const store = await disk.open();
    await t.rejects(disk.open(), { code: 'STORE_LOCKED' });
    await store.close();
    await (await disk.open()).close();
  });

  void t.test('a scan sees one moment', async (t) => {
    const store = await (await make()).open();
    const epoch = await store.acquire([1], 'me', 0);
    const put = (key: string) =>
      store.commit(
        [{ partition: 1, epoch, operations: [{ kind: 'put', key, value: value('x') }] }],
        'soft',
      );
    for (const key of ['m/1', 'm/2', 'm/3']) await put(key);
    const seen: string[] = [];
    for await (const [key] of store.scan({ gte: 'm/', lt: 'm0' })) {
      seen.push(key);
      if (seen.length === 1) await put('m/4');
    }
    t.same(seen, ['m/1', 'm/2', 'm/3']);
    await store.close();
  });
}
