// The content store, fetching, flights and pins; the origins against their conformance suite.
import { existsSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import t from 'tap';
import { Aliases } from '../../agent/content/aliases.ts';
import { ContentStore } from '../../agent/content/content-store.ts';
import { CoordinatorOrigin } from '../../agent/content/coordinator-origin.ts';
import { BlobFetcher, type BlobProgress } from '../../agent/content/fetch-blob.ts';
import { FolderStore } from '../../agent/content/folder-store.ts';
import { Gate } from '../../agent/content/gate.ts';
import { RegistryOrigin } from '../../agent/image/registry-origin.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock as clock } from '../../shared/clock.ts';
import { digestOf, hexOf } from '../../shared/digest.ts';
import { originAgent } from '../../shared/http-get.ts';
import { packDir } from '../../shared/pack-dir.ts';
import { RegistryClient } from '../../shared/registry/registry-client.ts';
import { originConformance } from '../conformance/origin.ts';
import { startHttpScript } from '../fakes/http-script.ts';
import { MemoryOrigin } from '../fakes/memory-origin.ts';
import { tarBytes } from '../fakes/tar-bytes.ts';

const never = new AbortController().signal;
const base = await mkdtemp(join(tmpdir(), 'runmesh-content-'));
t.teardown(() => rm(base, { recursive: true, force: true }));
let made = 0;
async function openStore(folder = join(base, `cas${(made += 1)}`)) {
  const store = await ContentStore.open({ folder, chance: systemChance, reserveBytes: 0 });
  const fetcher = new BlobFetcher({
    store,
    clock,
    chance: systemChance,
    backoff: { baseMs: 1, capMs: 2 },
  });
  return { folder, store, fetcher };
}

const blob = Buffer.alloc(500_000, 'some bytes that repeat ');
const digest = digestOf(blob);

t.test('a blob is put, read, found again, removed', async (t) => {
  const { store, folder } = await openStore();
  t.notOk(store.has(digest));
  t.throws(() => store.path(digest), { code: 'NOT_FOUND' });
  await store.put([blob.subarray(0, 10), blob.subarray(10)], { digest, sizeBytes: blob.length });
  t.equal(
    store.path(digest),
    join(folder, 'blobs/sha256', hexOf(digest).slice(0, 2), hexOf(digest)),
  );
  t.equal(statSync(store.path(digest)).mode & 0o777, 0o444);
  t.ok((await store.read(digest, 1e6)).equals(blob));
  const part = await buffer(store.open(digest, { start: 5, end: 9 }));
  t.ok(part.equals(blob.subarray(5, 10)));
  t.strictSame(store.stats, { blobs: 1, bytes: blob.length, ingesting: 0 });
  await store.put([blob]);
  t.equal(store.stats.blobs, 1, 'twice is once');
  const again = await openStore(folder);
  t.strictSame(again.store.stats, { blobs: 1, bytes: blob.length, ingesting: 0 });
  t.strictSame([...again.store.inventory()], [[digest, blob.length]]);
  const pin = store.pin(digest);
  const second = store.pin(digest);
  pin.release();
  pin.release();
  await t.rejects(store.remove(digest), { code: 'CONFLICT' });
  second[Symbol.dispose]();
  await store.remove(digest);
  await store.remove(digest);
  t.notOk(store.has(digest));
  t.strictSame((await openStore(folder)).store.stats.blobs, 0);
});

t.test('what is not right is not kept', async (t) => {
  const { store, folder } = await openStore();
  const bad = digestOf('other');
  await t.rejects(store.put([blob], { digest: bad }), { code: 'DIGEST_MISMATCH' });
  await t.rejects(store.put([blob], { sizeBytes: 10 }), { code: 'BLOB_TOO_LARGE' });
  await t.rejects(store.put([blob], { maxBytes: 10 }), { code: 'BLOB_TOO_LARGE' });
  const broken = async function* (): AsyncGenerator<Buffer> {
    yield blob;
    throw new Error('line cut');
  };
  await t.rejects(store.put(broken()), { message: 'line cut' });
  t.strictSame(await readdir(join(folder, 'ingest')), []);
  t.strictSame(store.stats, { blobs: 0, bytes: 0, ingesting: 0 });
  const full = await ContentStore.open({
    folder,
    chance: systemChance,
    reserveBytes: Number.MAX_SAFE_INTEGER,
  });
  await t.rejects(full.put([blob]), { code: 'DISK_FULL' });
});

t.test('bytes that changed on disk are noticed when read', async (t) => {
  const { store } = await openStore();
  await store.put([blob]);
  await rm(store.path(digest));
  await writeFile(store.path(digest), Buffer.alloc(blob.length));
  await t.rejects(store.read(digest, 1e6), { code: 'DIGEST_MISMATCH' });
});

t.test('any pieces give the same blob', async (t) => {
  const { store } = await openStore();
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 8 }),
      async (parts) => {
        const whole = Buffer.concat(parts);
        const put = await store.put(parts, { sizeBytes: whole.length });
        t.equal(put.digest, digestOf(whole));
        t.ok((await readFile(store.path(put.digest))).equals(whole));
      },
    ),
    { numRuns: 20 },
  );
});

t.test('fetch', async (t) => {
  await t.test('once, then from here', async (t) => {
    const { fetcher } = await openStore();
    const origin = new MemoryOrigin(blob);
    const seen: BlobProgress[] = [];
    const progress = (now: BlobProgress): void => void seen.push(now);
    const first = await fetcher.fetch({ digest, origin, progress }, never);
    t.strictSame(first, { digest, sizeBytes: blob.length, source: 'origin' });
    t.strictSame(seen.at(-1), { doneBytes: blob.length, totalBytes: blob.length });
    t.equal((await fetcher.fetch({ digest, origin }, never)).source, 'local');
    t.equal(origin.opened.length, 1);
    t.match(fetcher.stats.snapshot().sources, {
      local: { blobs: 1, bytes: blob.length },
      origin: { blobs: 1, bytes: blob.length },
    });
  });
  await t.test('one flight for many; who leaves does not end it (F51)', async (t) => {
    const { fetcher, store } = await openStore();
    const origin = new MemoryOrigin(blob);
    const gate = Promise.withResolvers<void>();
    origin.before = () => gate.promise;
    const leaving = new AbortController();
    const left = fetcher.fetch({ digest, origin }, leaving.signal);
    const others = [1, 2, 3].map(() => fetcher.fetch({ digest, origin }, never));
    leaving.abort(new Error('not me'));
    await t.rejects(left, { message: 'not me' });
    gate.resolve();
    t.equal((await Promise.all(others)).length, 3);
    t.equal(origin.opened.length, 1);
    t.equal(fetcher.stats.joined, 3);
    t.equal(store.stats.blobs, 1);
  });
  await t.test('ends when all have left', async (t) => {
    const { fetcher, folder } = await openStore();
    const origin = new MemoryOrigin(blob);
    const ended = Promise.withResolvers<void>();
    origin.before = (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          ended.resolve();
          reject(signal.reason);
        });
      });
    const stop = new AbortController();
    const two = [1, 2].map(() => fetcher.fetch({ digest, origin }, stop.signal));
    setTimeout(() => stop.abort(new Error('enough')), 20);
    for (const end of await Promise.allSettled(two)) t.equal(end.status, 'rejected');
    await ended.promise;
    await new Promise((resolve) => setTimeout(resolve, 50));
    t.strictSame(await readdir(join(folder, 'ingest')), []);
    t.equal(fetcher.stats.abandoned, 1);
  });
  await t.test('what the first may not read, the second may', async (t) => {
    const { fetcher } = await openStore();
    const poor = new MemoryOrigin();
    const ready = Promise.withResolvers<void>();
    poor.before = () => ready.promise;
    const first = fetcher.fetch({ digest, origin: poor }, never);
    const second = fetcher.fetch({ digest, origin: new MemoryOrigin(blob) }, never);
    ready.resolve();
    await t.rejects(first, { code: 'NOT_FOUND' });
    t.equal((await second).source, 'origin');
  });
});

t.test('aliases survive, and strange files are none', async (t) => {
  const folder = join(base, 'aliases');
  const aliases = await Aliases.open({ folder, chance: systemChance });
  t.equal(await aliases.get('a'), undefined);
  await aliases.set('a', digest);
  await aliases.set('a', digestOf('new'));
  const again = await Aliases.open({ folder, chance: systemChance });
  t.equal(await again.get('a'), digestOf('new'));
  const [name] = await readdir(folder);
  for (const torn of ['', '{', '[]', '{"name":"b"}', '{"name":"a","digest":"../x"}']) {
    await writeFile(join(folder, name ?? ''), torn);
    t.equal(await again.get('a'), undefined);
  }
});

t.test('a gate lets so many through', async (t) => {
  const gate = new Gate(2);
  let inside = 0;
  let most = 0;
  const stop = new AbortController();
  const work = async (): Promise<void> => {
    inside += 1;
    most = Math.max(most, inside);
    await new Promise((resolve) => setImmediate(resolve));
    inside -= 1;
  };
  const all = Array.from({ length: 8 }, () => gate.through(work, never));
  const leaving = gate.through(work, stop.signal);
  stop.abort(new Error('gone'));
  await t.rejects(leaving, { message: 'gone' });
  await Promise.all(all);
  t.equal(most, 2);
});

t.test('origins', async (t) => {
  const ranged = await startHttpScript((request, response) => {
    const { url = '', headers } = request;
    const isPayload = url === `/agent/payloads/${hexOf(digest)}`;
    const isBlob = url === `/v2/acme/x/blobs/${digest}`;
    if (isPayload && headers.authorization !== 'Bearer grant')
      return void response.writeHead(401).end();
    if (!isPayload && !isBlob) return void response.writeHead(404).end();
    const from = Number(/bytes=([0-9]+)-/.exec(headers.range ?? '')?.[1] ?? 0);
    const range = { 'content-range': `bytes ${from}-${blob.length - 1}/${blob.length}` };
    response.writeHead(from > 0 ? 206 : 200, from > 0 ? range : {}).end(blob.subarray(from));
  });
  const client = new RegistryClient({ registry: ranged.host, clock });
  const dispatcher = originAgent();
  t.teardown(async () => {
    await client[Symbol.asyncDispose]();
    await dispatcher.destroy();
    await ranged[Symbol.asyncDispose]();
  });
  const under = { blob, byDigest: true };
  await t.test('memory', async (t) => {
    originConformance(t, { ...under, origin: new MemoryOrigin(blob), missing: 'NOT_FOUND' });
  });
  await t.test('registry', async (t) => {
    const origin = new RegistryOrigin(client, 'acme/x', 'blobs');
    originConformance(t, { ...under, origin, missing: 'IMAGE_NOT_FOUND' });
  });
  const base = new URL(`http://${ranged.host}`);
  await t.test('coordinator', async (t) => {
    const origin = new CoordinatorOrigin({ base, token: 'grant', clock, dispatcher });
    originConformance(t, { ...under, origin, missing: 'NOT_FOUND' });
  });
  await t.test('coordinator without the right', async (t) => {
    const origin = new CoordinatorOrigin({ base, token: 'other', clock, dispatcher });
    await t.rejects(origin.open({ digest }, never), { code: 'UNAUTHORIZED' });
  });
});

t.test('a packed folder comes out as it went in, once', async (t) => {
  const source = join(base, 'app');
  await mkdir(join(source, 'sub'), { recursive: true });
  await writeFile(join(source, 'main.js'), 'code');
  await writeFile(join(source, 'sub', 'run'), 'script', { mode: 0o755 });
  const packed = await packDir({ folder: source, target: join(base, 'app.tar') });
  const origin = new MemoryOrigin(await readFile(join(base, 'app.tar')));
  const { store, fetcher } = await openStore();
  const dataFolder = join(base, 'folders');
  const folders = await FolderStore.open({ dataFolder, store, fetcher, chance: systemChance });
  const wanted = { digest: packed.digest, sizeBytes: packed.sizeBytes, origin };
  const [one, two] = await Promise.all([folders.get(wanted, never), folders.get(wanted, never)]);
  t.equal(one?.path, join(dataFolder, 'apps', hexOf(packed.digest)));
  t.equal(one?.path, two?.path);
  t.equal(origin.opened.length, 1);
  t.equal(await readFile(join(one?.path ?? '', 'main.js'), 'utf8'), 'code');
  t.equal(statSync(join(one?.path ?? '', 'sub', 'run')).mode & 0o777, 0o755);
  await t.rejects(folders.remove(packed.digest), { code: 'CONFLICT' });
  one?.pin.release();
  two?.pin.release();
  const again = await FolderStore.open({ dataFolder, store, fetcher, chance: systemChance });
  t.ok(again.has(packed.digest));
  await again.remove(packed.digest);
  t.notOk(existsSync(one?.path ?? ''));

  const hostile = [
    tarBytes({ name: 'l', type: '2', linkname: '/etc' }),
    tarBytes({ name: 'd/l', type: '2', linkname: '../../x' }),
    tarBytes({ name: 'p', type: '6' }),
    tarBytes({ name: '../x', body: 'x' }),
  ];
  for (const bytes of hostile) {
    const bad = { digest: digestOf(bytes), origin: new MemoryOrigin(bytes) };
    await t.rejects(folders.get(bad, never), { code: 'LAYER_INVALID' });
    t.notOk(folders.has(bad.digest));
  }
  const plain = tarBytes({ name: '.wh.kept', body: 'x' }, { name: 'su', mode: 0o6777, body: 'x' });
  const { path } = await folders.get(
    { digest: digestOf(plain), origin: new MemoryOrigin(plain) },
    never,
  );
  t.strictSame((await readdir(path)).sort(), ['.wh.kept', 'su'], 'whiteouts mean nothing here');
  t.equal(statSync(join(path, 'su')).mode & 0o7777, 0o755);
  t.strictSame(
    (await readdir(join(dataFolder, 'apps'))).filter((n) => n.startsWith('.')),
    [],
  );
});
