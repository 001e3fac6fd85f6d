// Images end to end: built with umoci, pushed with skopeo to a real docker-registry, pulled and unpacked by us, mounted,
// and compared with what umoci itself unpacks from the same image.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { BlobFetcher } from '../../agent/content/fetch-blob.ts';
import { ContentStore } from '../../agent/content/content-store.ts';
import { LinuxHost } from '../../agent/host/linux-host.ts';
import { ImagePuller, type PullProgress } from '../../agent/image/image-puller.ts';
import { compressionOf } from '../../agent/image/decompress.ts';
import { LayerStore } from '../../agent/image/layer-store.ts';
import { mountRootfs } from '../../agent/image/rootfs.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { digestOf } from '../../shared/digest.ts';
import { asFailure } from '../../shared/failure.ts';
import { parseImageRef } from '../../shared/image-ref.ts';
import { platformOf } from '../../shared/registry/manifest.ts';
import { resolveImage } from '../../shared/registry/resolve-image.ts';
import { REGISTRY_LOGIN, startRegistryProcess } from '../fakes/registry-process.ts';
import { tarBytes, type TarPart } from '../fakes/tar-bytes.ts';
import { listTree } from '../fakes/tree-listing.ts';
import { skipWithoutRoot, tools } from '../tools/tools.ts';

const debian = await tools(['runtime', 'images']);
process.env['PATH'] = debian.env()['PATH'];
const skip =
  debian.lacks('umoci', 'skopeo', 'docker-registry', 'setfattr', 'getfattr') ||
  (await skipWithoutRoot());
const never = new AbortController().signal;
const clock = systemClock;
const run = promisify(execFile);

const base = realpathSync(await mkdtemp(join(tmpdir(), 'runmesh-image-')));
t.teardown(() => rm(base, { recursive: true, force: true }));

let made = 0;
async function openAgent() {
  const dataFolder = join(base, `agent${(made += 1)}`);
  await mkdir(dataFolder, { recursive: true });
  const host = new LinuxHost({ dataFolder, clock });
  const store = await ContentStore.open({ folder: join(dataFolder, 'cas'), chance: systemChance });
  const fetcher = new BlobFetcher({ store, clock, chance: systemChance });
  const layers = await LayerStore.open({ dataFolder, host, chance: systemChance });
  const platform = platformOf(process.arch);
  const puller = new ImagePuller({ store, fetcher, layers, clock, platform });
  return { dataFolder, host, store, fetcher, layers, puller };
}

/** Builds an image of these layers, lowest first, and returns its layout. */
async function build(name: string, layers: readonly Buffer[]): Promise<string> {
  const layout = join(base, `layout-${name}`);
  const umoci = debian.path('umoci');
  await run(umoci, ['init', '--layout', layout]);
  await run(umoci, ['new', '--image', `${layout}:1`]);
  for (const [at, bytes] of layers.entries()) {
    const path = join(base, `${name}-${at}.tar`);
    await writeFile(path, bytes);
    await run(umoci, ['raw', 'add-layer', '--image', `${layout}:1`, path]);
  }
  await run(umoci, [
    'config',
    '--image',
    `${layout}:1`,
    '--config.env',
    'A=1',
    '--config.workingdir',
    '/w',
  ]);
  return layout;
}

async function push(layout: string, ref: string, more: readonly string[] = []): Promise<void> {
  const flags = ['--insecure-policy', 'copy', '--quiet', '--dest-tls-verify=false', ...more];
  await run(debian.path('skopeo'), [...flags, `oci:${layout}:1`, `docker://${ref}`]);
}

const file = (name: string, body: string, more: TarPart = {}): TarPart => ({ name, body, ...more });
const folder = (name: string, more: TarPart = {}): TarPart => ({ name, type: '5', ...more });

const bottom = tarBytes(
  folder('./', { mode: 0o755, mtime: 900_000_000 }),
  folder('bin/'),
  file('bin/su', 'su', { mode: 0o4755 }),
  { name: 'bin/sh', type: '2', linkname: 'su' },
  { name: 'lib', type: '2', linkname: '/bin' },
  folder('tmp/', { mode: 0o1777, mtime: 950_000_000 }),
  folder('data/', { uid: 1000, gid: 1000, mode: 0o750 }),
  file('data/one', 'one', { uid: 1000, gid: 1000 }),
  file('data/two', 'two'),
  folder('data/deep/'),
  file('data/deep/x', 'x'),
  folder('hidden/'),
  file('hidden/a', 'a'),
  file('hidden/b', 'b'),
  file('twin-a', 'twin'),
  { name: 'twin-b', type: '1', linkname: 'twin-a' },
  file('capable', 'c', {
    pax: {
      'SCHILY.xattr.security.capability': Buffer.from(
        '0100000280000000000000000000000000000000',
        'hex',
      ),
      'SCHILY.xattr.user.note': 'hello',
    },
  }),
  file('becomes-folder', 'f'),
  folder('becomes-file/'),
  file('becomes-file/x', 'x'),
  file('ünïcode', 'u'),
  { name: 'null', type: '3', devmajor: 1, devminor: 3, mode: 0o666 },
  { name: 'pipe', type: '6', mode: 0o600 },
);
const middle = tarBytes(
  folder('data/', { uid: 1000, gid: 1000, mode: 0o750 }),
  { name: 'data/.wh.one' },
  { name: 'data/.wh.deep' },
  folder('hidden/'),
  { name: 'hidden/.wh..wh..opq' },
  file('hidden/c', 'c'),
  { name: '.wh.becomes-folder' },
  folder('becomes-folder/'),
  file('becomes-folder/inner', 'i'),
  { name: '.wh.becomes-file' },
  file('becomes-file', 'now a file'),
  file('tmp/left', 'implied parent'),
);
const top = tarBytes(file('data/three', 'three'), folder('data/deep/'), file('data/deep/y', 'y'));

t.test('the same tree as umoci gives', { skip }, async (t) => {
  await using registry = await startRegistryProcess(
    debian.path('docker-registry'),
    join(base, 'registry'),
  );
  const layout = await build('all', [bottom, middle, top]);
  const ref = `${registry.host}/acme/all:1`;
  await push(layout, ref);
  const theirs = join(base, 'umoci-rootfs');
  await run(debian.path('umoci'), ['raw', 'unpack', '--image', `${layout}:1`, theirs]);

  const resolved = await resolveImage(ref, { clock, signal: never });
  t.equal(resolved.kind, 'manifest');
  t.equal(resolved.text, `${ref}@${resolved.digest}`);
  const agent = await openAgent();
  t.equal(await agent.puller.cached(resolved.digest, never), undefined);
  const seen: PullProgress[] = [];
  const pulled = await agent.puller.pull(
    { ref: resolved.ref, progress: (progress) => seen.push(progress) },
    never,
  );
  t.strictSame(pulled.image.config.env, ['A=1']);
  t.equal(pulled.image.config.workingDir, '/w');
  t.equal(pulled.image.digest, resolved.digest);
  t.equal(pulled.layerFolders.length, 3);
  t.ok(pulled.pulledBytes > 0);
  t.equal(seen[0]?.stage, 'manifest');
  const last = seen.at(-1);
  t.strictSame([last?.stage, last?.doneLayers, last?.totalLayers], ['done', 3, 3]);
  t.equal(last?.doneBytes, last?.totalBytes);

  const run1 = join(agent.dataFolder, 'run', 'r1');
  await mkdir(run1, { recursive: true });
  await using rootfs = await mountRootfs(
    { host: agent.host, folder: run1, layerFolders: pulled.layerFolders },
    never,
  );
  // Folders that a layer only implies: umoci touches them, we keep the time of the layer below.
  const timeless = new Set(['', 'tmp', 'data', 'hidden', 'data/deep', 'becomes-folder']);
  const options = { getfattr: debian.path('getfattr'), timeless };
  t.strictSame(listTree(rootfs.path, options), listTree(theirs, options));
  await writeFile(join(rootfs.path, 'tmp', 'written'), 'by the runner');
  t.equal(await readFile(join(rootfs.upper, 'tmp', 'written'), 'utf8'), 'by the runner');

  await t.test('again: nothing is asked for', async (t) => {
    const { origin } = agent.fetcher.stats.sources;
    const bytes = origin.bytes;
    const again = await agent.puller.cached(resolved.digest, never);
    t.strictSame(again?.layerFolders, pulled.layerFolders);
    t.equal(again?.pulledBytes, 0);
    t.equal((await agent.puller.pull({ ref: resolved.ref }, never)).pulledBytes, 0);
    t.equal(origin.bytes, bytes);
  });

  await t.test('pinned while used (C4), free afterwards', async (t) => {
    const layer = pulled.image.layers[0];
    if (!layer) throw new Error('no layer');
    await t.rejects(agent.layers.remove(layer.diffId), { code: 'CONFLICT' });
    await t.rejects(agent.store.remove(resolved.digest), { code: 'CONFLICT' });
    t.notOk(agent.store.isPinned(layer.digest), 'the blob of an unpacked layer may go');
  });

  await t.test('a blob that changed on disk is fetched again (F48)', async (t) => {
    const layer = pulled.image.layers[1];
    if (!layer) throw new Error('no layer');
    const other = await openAgent();
    await other.puller.pull({ ref: resolved.ref }, never).then(({ pin }) => pin.release());
    await other.layers.remove(layer.diffId);
    const path = other.store.path(layer.digest);
    const bytes = await readFile(path);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 0xff;
    await rm(path);
    await writeFile(path, bytes);
    const mended = await other.puller.pull({ ref: resolved.ref }, never);
    t.equal(mended.pulledBytes, layer.sizeBytes);
    t.ok(await other.store.verify(layer.digest, never));
  });

  await t.test('a restart finds it again and removes what was interrupted', async (t) => {
    await mkdir(join(agent.dataFolder, 'layers', '.new-abc', 'fs'), { recursive: true });
    await mkdir(join(agent.dataFolder, 'cas', 'ingest', 'abc'), { recursive: true });
    const { dataFolder, host } = agent;
    const store = await ContentStore.open({
      folder: join(dataFolder, 'cas'),
      chance: systemChance,
    });
    const layers = await LayerStore.open({ dataFolder, host, chance: systemChance });
    t.strictSame(store.stats.blobs, agent.store.stats.blobs);
    t.strictSame(layers.inventory().toSorted(), agent.layers.inventory().toSorted());
    t.strictSame(await readdir(join(dataFolder, 'cas', 'ingest')), []);
    t.notOk((await readdir(join(dataFolder, 'layers'))).some((name) => name.startsWith('.new')));
  });
});

t.test('two at once fetch once (F51); zstd, multi-member gzip and repeats', { skip }, async (t) => {
  await using registry = await startRegistryProcess(
    debian.path('docker-registry'),
    join(base, 'registry2'),
  );
  const one = tarBytes(folder('a/'), file('a/x', 'x'.repeat(100_000)));
  const layout = await build('two', [one, tarBytes(file('y', 'y')), one]);
  await push(layout, `${registry.host}/two:1`);
  await push(layout, `${registry.host}/two:zstd`, [
    '--dest-compress-format',
    'zstd',
    '--dest-compress',
  ]);
  const { ref } = await resolveImage(`${registry.host}/two:1`, { clock, signal: never });
  const agent = await openAgent();
  const [a, b] = await Promise.all([
    agent.puller.pull({ ref }, never),
    agent.puller.pull({ ref }, never),
  ]);
  t.strictSame(a.layerFolders, b.layerFolders);
  t.equal(a.image.layers.length, 3);
  t.equal(a.layerFolders.length, 2, 'a layer that comes twice is mounted once');
  t.equal(agent.fetcher.stats.sources.origin.blobs, agent.store.stats.blobs, 'each blob once');
  const zstd = await resolveImage(`${registry.host}/two:zstd`, { clock, signal: never });
  const other = await openAgent();
  const pulled = await other.puller.pull({ ref: zstd.ref }, never);
  t.strictSame(
    pulled.image.layers.map(({ diffId }) => diffId),
    a.image.layers.map(({ diffId }) => diffId),
  );
  const folderA = join(base, 'members');
  await mkdir(folderA);
  const cut = one.length / 2;
  const members = Buffer.concat([gzipSync(one.subarray(0, cut)), gzipSync(one.subarray(cut))]);
  await writeFile(join(folderA, 'blob'), members);
  const third = await openAgent();
  await third.layers.unpack(digestOf(one), join(folderA, 'blob'), never);
  t.ok(third.layers.has(digestOf(one)));
});

t.test('a registry with a password', { skip }, async (t) => {
  await using registry = await startRegistryProcess(
    debian.path('docker-registry'),
    join(base, 'registry3'),
    { password: true },
  );
  const layout = await build('secret', [tarBytes(file('s', 's'))]);
  const ref = `${registry.host}/secret:1`;
  const { username, password } = REGISTRY_LOGIN;
  await push(layout, ref, ['--dest-creds', `${username}:${password}`]);
  await t.rejects(resolveImage(ref, { clock, signal: never }), { code: 'REGISTRY_UNAUTHORIZED' });
  const wrong = { username, password: 'wrong' };
  await t.rejects(resolveImage(ref, { clock, credentials: wrong, signal: never }), {
    code: 'REGISTRY_UNAUTHORIZED',
    message: /secret:1/,
  });
  const credentials = REGISTRY_LOGIN;
  const resolved = await resolveImage(ref, { clock, credentials, signal: never });
  const agent = await openAgent();
  const pulled = await agent.puller.pull({ ref: resolved.ref, credentials }, never);
  t.equal(await readFile(join(pulled.layerFolders[0] ?? '', 's'), 'utf8'), 's');
  await t.rejects(
    resolveImage(`${registry.host}/nothing:1`, { clock, credentials, signal: never }),
    { code: 'IMAGE_NOT_FOUND', message: /nothing:1/ },
  );
});

t.test('a disk that fills up while a layer is written', { skip }, async (t) => {
  const dataFolder = join(base, 'small');
  await mkdir(dataFolder);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', dataFolder]);
  t.teardown(() => run('umount', [dataFolder]));
  const host = new LinuxHost({ dataFolder, clock });
  const layers = await LayerStore.open({ dataFolder, host, chance: systemChance, reserveBytes: 0 });
  const bytes = tarBytes(file('big', 'b'.repeat(5_000_000)));
  const blob = join(base, 'big-blob');
  await writeFile(blob, gzipSync(bytes));
  const failure = await layers.unpack(digestOf(bytes), blob, never).catch(asFailure);
  t.equal(failure?.code, 'DISK_FULL');
  t.strictSame(
    (await readdir(join(dataFolder, 'layers'))).filter((name) => name !== '.whiteout'),
    [],
  );
  const store = await ContentStore.open({
    folder: join(dataFolder, 'cas'),
    chance: systemChance,
    reserveBytes: 0,
  });
  const big = Buffer.alloc(3_000_000);
  await t.rejects(store.put([big], { sizeBytes: big.length }), { code: 'DISK_FULL' }, 'said first');
  await t.rejects(store.put([big]), { code: 'DISK_FULL' }, 'found out');
  t.strictSame(await readdir(join(dataFolder, 'cas', 'ingest')), []);
  t.strictSame(store.stats, { blobs: 0, bytes: 0, ingesting: 0 });
});

t.test('compression is told by the bytes', async (t: Test) => {
  t.equal(compressionOf(gzipSync('x')), 'gzip');
  t.equal(compressionOf(zstdCompressSync('x')), 'zstd');
  t.equal(compressionOf(Buffer.from('502a4d18', 'hex')), 'zstd');
  t.equal(compressionOf(tarBytes()), 'none');
  t.equal(compressionOf(new Uint8Array()), 'none');
});

t.test('a pull without a digest is refused', { skip }, async (t) => {
  const ref = parseImageRef('localhost:1/x:1');
  const agent = await openAgent();
  await t.rejects(agent.puller.pull({ ref }, never), { code: 'IMAGE_REF_INVALID' });
});
