// The stores, their codec and their key space.
import { join } from 'node:path';
import t from 'tap';
import { decodeValue, encodeValue } from '../../coordinator/store/codec.ts';
import { GroupCommit } from '../../coordinator/store/group-commit.ts';
import { keys } from '../../coordinator/store/keys.ts';
import { openLevelStore } from '../../coordinator/store/level-store.ts';
import { MemoryDisk, openMemoryStore } from '../../coordinator/store/memory-store.ts';
import { Overlay } from '../../coordinator/shell/overlay.ts';
import type { NodeId, RequestId, RevisionId } from '../../shared/ids.ts';
import { storeConformance } from '../conformance/store.ts';
import { golden } from '../golden.ts';

void t.test('LevelDB', async (t) => {
  let count = 0;
  storeConformance(t, async () => {
    const folder = join(t.testdir(), String((count += 1)));
    return { open: () => openLevelStore(folder) };
  });
});

void t.test('memory', async (t) => {
  storeConformance(t, async () => {
    const disk = new MemoryDisk();
    return { open: async () => openMemoryStore(disk) };
  });
});

void t.test(
  'codec: any flipped bit of a record is found; newer versions are refused',
  async (t) => {
    const record = {
      app: 'a/b',
      bytes: new Uint8Array([1, 2, 3]),
      list: [1, 'x', null, true, 5e12],
    };
    const value = encodeValue(record);
    t.same(decodeValue('k', value), { ...record, bytes: Buffer.from([1, 2, 3]) });
    let caught = 0;
    for (let bit = 8; bit < value.byteLength * 8; bit += 1) {
      const bad = value.slice();
      bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      try {
        decodeValue('k', bad);
      } catch {
        caught += 1;
      }
    }
    t.equal(caught, value.byteLength * 8 - 8);
    t.throws(() => decodeValue('k', Uint8Array.of(9, 0, 0, 0, 0, 0)), { code: 'STORE_TOO_NEW' });
    t.throws(() => decodeValue('k', Uint8Array.of(1)), { code: 'STORE_CORRUPT' });
  },
);

void t.test('G1, G2: callers share a write, and nothing is written after one failed', async (t) => {
  const writes: { count: number; sync: boolean }[] = [];
  let broken = false;
  const commit = new GroupCommit(async (operations, sync) => {
    await new Promise((done) => setImmediate(done));
    if (broken) throw new Error('EIO');
    writes.push({ count: operations.length, sync });
  });
  const put = (durability: 'sync' | 'soft') =>
    commit.commit([{ kind: 'put', key: 'k', value: new Uint8Array() }], durability);
  await Promise.all([put('soft'), put('sync'), put('soft')]);
  await put('soft');
  t.same(writes, [
    { count: 3, sync: true },
    { count: 1, sync: false },
  ]);
  broken = true;
  const failing = [put('sync'), put('sync')];
  for (const one of failing) await t.rejects(one, { code: 'STORE_FAILED' });
  broken = false;
  await t.rejects(put('sync'), { code: 'STORE_FAILED' }, 'the handle stays dead');
  t.equal(writes.length, 2);
});

void t.test('O1: the overlay keeps what a pinned loader may have missed', async (t) => {
  const overlay = new Overlay(0);
  overlay.write('k', 1, 1);
  const release = overlay.pin();
  overlay.write('k', 2, 2);
  overlay.settle(['k'], 1);
  t.same(overlay.find('k')?.value, 2, 'a newer write stands');
  overlay.settle(['k'], 2);
  t.same(overlay.find('k')?.value, 2, 'pinned before it was settled');
  release();
  t.equal(overlay.find('k'), undefined);
  overlay.write('j', 1, 3);
  overlay.settle(['j'], 3);
  t.equal(overlay.size, 0, 'nobody pinned: forgotten at once');

  const keeping = new Overlay(2);
  for (let step = 1; step <= 9; step += 1) {
    keeping.write(`k${step}`, step, step);
    t.equal(keeping.findSettled(`k${step}`), undefined, 'not on disk yet');
    keeping.settle([`k${step}`], step);
    t.same(keeping.findSettled(`k${step}`)?.value, step);
  }
  t.ok(keeping.size <= 4, 'O2: only the latest are kept');
});

void t.test('the key space is as it was', async (t) => {
  const request = '019a8c5e-0000-7abc-8005-0123456789ab' as RequestId;
  const node = 'n00000000100000000' as NodeId;
  const app = 'acme/cutout';
  const lines = {
    meta: keys.meta(),
    tokenKey: keys.tokenKey(),
    node: keys.node(node),
    owner: keys.owner(63),
    app: keys.app(app),
    revision: keys.revision(app, 'v00000000100000000' as RevisionId),
    sequence: keys.sequence(app),
    request: keys.request(request),
    input: keys.input(request),
    output: keys.output(request),
    ready: keys.ready(app, 1, 2 ** 40),
    dueRetry: keys.due(request, 'retry'),
    dueStart: keys.due(request, 'start'),
    flight: keys.flight(request, node),
  };
  const text = Object.entries(lines).map(([name, key]) => `${name.padEnd(10)} ${key}\n`);
  await golden(t, 'keys.txt', text.join(''));
  t.ok(
    keys.ready(app, 0, 9) < keys.ready(app, 0, 10) &&
      keys.ready(app, 0, 2 ** 50) < keys.ready(app, 1, 0),
  );
});
