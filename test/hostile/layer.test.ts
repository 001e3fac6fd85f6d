// Archives that lie. For each: the code, that nothing outside the layer was touched, and that nothing of it is to be
// seen afterwards (C2). Then archives that are odd but legal, which must unpack.
import { mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { lstatSync, readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { LinuxHost } from '../../agent/host/linux-host.ts';
import { MemoryHost } from '../../agent/host/memory-host.ts';
import { LayerStore, readLayerRecord } from '../../agent/image/layer-store.ts';
import { readPax } from '../../agent/image/tar-reader.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { digestOf, type Digest } from '../../shared/digest.ts';
import { asFailure } from '../../shared/failure.ts';
import { tarBytes, tarPart, type TarPart } from '../fakes/tar-bytes.ts';
import { skipWithoutRoot, tools } from '../tools/tools.ts';

const debian = await tools(['runtime']);
process.env['PATH'] = debian.env()['PATH'];
const withoutRoot = (await skipWithoutRoot()) || debian.lacks('setfattr', 'getfattr');
const never = new AbortController().signal;

const base = realpathSync(await mkdtemp(join(tmpdir(), 'runmesh-layer-')));
t.teardown(() => rm(base, { recursive: true, force: true }));
await writeFile(join(base, 'victim'), 'untouched');
await mkdir(join(base, 'outside'));

let made = 0;
async function openStore(limits: { maxEntries?: number; maxBytes?: number } = {}) {
  const dataFolder = join(base, `data${(made += 1)}`);
  const host = withoutRoot ? new PlainHost() : new LinuxHost({ dataFolder, clock: systemClock });
  const store = await LayerStore.open({
    dataFolder,
    host,
    chance: systemChance,
    reserveBytes: 0,
    ...limits,
  });
  return { store, dataFolder };
}

/** A plain user's: no device nodes, no attributes. */
class PlainHost extends MemoryHost {
  override async abilities() {
    return { ...(await super.abilities()), containers: { yes: false as const, no: 'not root' } };
  }
}

async function unpack(
  bytes: Buffer,
  limits: { maxEntries?: number; maxBytes?: number; diffId?: Digest } = {},
) {
  const { store, dataFolder } = await openStore(limits);
  const blob = join(dataFolder, 'blob');
  await writeFile(blob, bytes);
  const diffId = limits.diffId ?? digestOf(bytes);
  const failure = await store.unpack(diffId, blob, never).then(
    () => undefined,
    (error: unknown) => asFailure(error),
  );
  return { store, dataFolder, diffId, failure };
}

const outsideLooksAs = (): string =>
  JSON.stringify([
    readdirSync(base).filter((name) => !name.startsWith('data')),
    readdirSync(join(base, 'outside')),
    statSync(join(base, 'victim')).nlink,
  ]);
const before = outsideLooksAs();

const file = (name: string, more: TarPart = {}): TarPart => ({ name, body: 'evil', ...more });
const link = (name: string, linkname: string): TarPart => ({ name, type: '2', linkname });
const hard = (name: string, linkname: string): TarPart => ({ name, type: '1', linkname });
const long = 'd/'.repeat(1030);

/** Name → archive, and words of the refusal. */
const hostile: Record<string, [Buffer, RegExp]> = {
  'a name with ..': [tarBytes(file('../victim')), /\.\. in its path/],
  'a name with .. in the middle': [tarBytes(file('a/../../victim')), /\.\. in its path/],
  'an absolute name with ..': [tarBytes(file('/../../victim')), /\.\. in its path/],
  'a PAX path with ..': [tarBytes(file('ok', { pax: { path: '../../victim' } })), /\.\. in its/],
  'a PAX path with NUL': [tarBytes(file('ok', { pax: { path: 'a\0b' } })), /NUL/],
  'a GNU long name with ..': [
    tarBytes({ name: '././@LongLink', type: 'L', body: '../../victim\0' }, file('ok')),
    /\.\. in its path/,
  ],
  'a file through a symlink': [
    tarBytes(link('l', base), file('l/victim')),
    /links are not followed/,
  ],
  'a file through a chain of symlinks': [
    tarBytes(link('a', '..'), link('b', 'a/..'), file('b/victim')),
    /links are not followed/,
  ],
  'a folder through a symlink': [
    tarBytes(link('l', join(base, 'outside')), { name: 'l/new/', type: '5' }),
    /links are not followed/,
  ],
  'a whiteout through a symlink': [
    tarBytes(link('l', base), { name: 'l/.wh.victim' }),
    /links are not followed/,
  ],
  'an opaque mark on a symlink': [
    tarBytes(link('l', base), { name: 'l/.wh..wh..opq' }),
    /links are not followed/,
  ],
  'a symlink that is swapped for its folder': [
    tarBytes({ name: 'd/', type: '5' }, link('d', base), file('d/victim')),
    /links are not followed/,
  ],
  'a hard link out': [tarBytes(hard('h', '../victim')), /\.\. in its path/],
  'a hard link to an absolute path': [
    tarBytes(hard('h', join(base, 'victim'))),
    /not in this layer|not a folder/,
  ],
  'a hard link through a symlink': [
    tarBytes(link('l', base), hard('h', 'l/victim')),
    /not a folder of this layer/,
  ],
  'a hard link through a chain': [
    tarBytes({ name: 'd/', type: '5' }, link('d/l', base), hard('h', 'd/l/victim'), file('h')),
    /not a folder of this layer/,
  ],
  'a hard link to a folder': [tarBytes({ name: 'd/', type: '5' }, hard('h', 'd')), /no file/],
  'a hard link to the root': [tarBytes(hard('h', './')), /hard link to the root/],
  'a hard link with a size': [
    tarBytes(file('a'), { ...hard('h', 'a'), body: 'evil' }),
    /with a size/,
  ],
  'a symlink with a size': [tarBytes({ ...link('s', 'a'), body: 'evil' }), /with a size/],
  'a symlink to nothing': [tarBytes(link('s', '')), /link to nothing/],
  'a file below a file': [tarBytes(file('f'), file('f/g')), /no folder/],
  'a root that is a symlink': [tarBytes(link('./', base), file('victim')), /replaces the root/],
  'a root that is a file': [tarBytes(file('.')), /replaces the root/],
  'an old GNU sparse file': [tarBytes(file('s', { type: 'S' })), /cannot be unpacked/],
  'a PAX sparse file': [
    tarBytes(file('s', { pax: { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' } })),
    /sparse/,
  ],
  'an unknown type': [tarBytes(file('s', { type: 'Z' })), /cannot be unpacked/],
  'a GNU volume header': [tarBytes(file('s', { type: 'V' })), /cannot be unpacked/],
  'a forged opaque attribute': [
    tarBytes({
      name: 'd/',
      type: '5',
      pax: { 'SCHILY.xattr.trusted.overlay.opaque': 'y' },
    }),
    /belongs to overlayfs/,
  ],
  'a forged redirect': [
    tarBytes({ name: 'd/', type: '5', pax: { 'SCHILY.xattr.trusted.overlay.redirect': '/etc' } }),
    /belongs to overlayfs/,
  ],
  'a forged user overlay attribute': [
    tarBytes(file('f', { pax: { 'SCHILY.xattr.user.overlay.whiteout': '' } })),
    /belongs to overlayfs/,
  ],
  'a whiteout made of a device': [
    tarBytes({ name: 'w', type: '3', devmajor: 0, devminor: 0 }),
    /0:0/,
  ],
  'a device with impossible numbers': [
    tarBytes({ name: 'w', type: '3', devmajor: 99_999, devminor: 0 }),
    /do not exist/,
  ],
  'a bare whiteout': [tarBytes({ name: 'd/.wh.' }), /whiteout of nothing/],
  'a whiteout of .': [tarBytes({ name: 'd/.wh..' }), /whiteout of nothing/],
  'a whiteout of ..': [tarBytes({ name: 'd/.wh...' }), /whiteout of nothing/],
  'a folder named like a whiteout': [tarBytes({ name: '.wh.d/', type: '5' }), /not a whiteout/],
  'a file in a folder named like a whiteout': [tarBytes(file('.wh.d/f')), /begins with \.wh\./],
  'a symlink named like a whiteout': [tarBytes(link('.wh.s', 'x')), /not a whiteout/],
  'a name that is too long': [
    tarBytes(file('x', { pax: { path: 'n'.repeat(256) } })),
    /over 255 bytes/,
  ],
  'a path that is too long': [
    tarBytes(file('x', { pax: { path: `${'abcdefgh/'.repeat(500)}f` } })),
    /over 4096 bytes/,
  ],
  'a path that is too deep': [tarBytes(file('x', { pax: { path: `${long}f` } })), /folders deep/],
  'an impossible owner': [tarBytes(file('x', { pax: { uid: '4294967295' } })), /impossible uid/],
  'a negative owner': [tarBytes(file('x', { pax: { gid: '-1' } })), /impossible gid/],
  'a time that is none': [tarBytes(file('x', { pax: { mtime: 'soon' } })), /wrong mtime/],
  'a PAX size that is none': [tarBytes(file('x', { pax: { size: '1e3' } })), /PAX size/],
  'a PAX record that lies about its length': [
    tarBytes({ name: 'p', type: 'x', body: '99 path=a\n' }, file('x')),
    /PAX header/,
  ],
  'a PAX header over the limit': [
    tarBytes(file('x', { pax: { comment: 'c'.repeat(1_100_000) } })),
    /header is over/,
  ],
  'an attribute over the limit': [
    tarBytes(file('x', { pax: { 'SCHILY.xattr.user.big': 'c'.repeat(70_000) } })),
    /attribute over/,
  ],
  'an archive that ends in a file': [
    tarPart(file('x', { body: 'a'.repeat(5_000) })).subarray(0, 2_000),
    /Unexpected end|ends in the middle/,
  ],
  'an archive that ends in a header': [
    tarPart(file('x')).subarray(0, 300),
    /Unexpected end|ends in/,
  ],
  'a body shorter than its size': [
    tarPart(file('x', { size: 1_000_000 })),
    /Unexpected end|ends in/,
  ],
  'entries behind the end': [
    Buffer.concat([tarBytes(file('a')), tarBytes(file('b'))]),
    /end of the archive/,
  ],
  'a wrong checksum': [Buffer.from(tarBytes(file('a'))).fill('9', 0, 4), /cannot be read/],
  'no tar at all': [Buffer.alloc(4096, 'text'), /cannot be read/],
  'gzip that breaks off': [gzipSync(tarBytes(file('a'))).subarray(0, 60), /decompressed/],
  'gzip with a flipped byte': [
    ((): Buffer => {
      const bytes = gzipSync(tarBytes(file('a', { body: 'abc'.repeat(3000) })));
      bytes[40] = (bytes[40] ?? 0) ^ 0xff;
      return bytes;
    })(),
    /decompressed|cannot be read|ends in|unpacks to/,
  ],
  'zstd that breaks off': [zstdCompressSync(tarBytes(file('a'))).subarray(0, 30), /decompressed/],
};

for (const [name, [bytes, words]] of Object.entries(hostile)) {
  t.test(`refused: ${name}`, async (t) => {
    const { store, dataFolder, diffId, failure } = await unpack(bytes);
    t.equal(failure?.code, 'LAYER_INVALID');
    t.match(failure?.message ?? '', words);
    t.notOk(store.has(diffId), 'not visible');
    const left = await readdir(join(dataFolder, withoutRoot ? 'layers-partial' : 'layers'));
    t.strictSame(
      left.filter((entry) => entry !== '.whiteout'),
      [],
      'nothing left',
    );
    t.equal(outsideLooksAs(), before, 'nothing outside');
    t.equal(await readFile(join(base, 'victim'), 'utf8'), 'untouched');
  });
}

t.test('refused by a limit', async (t) => {
  const many = tarBytes(...Array.from({ length: 30 }, (_, at) => file(`f${at}`)));
  t.match((await unpack(many, { maxEntries: 29 })).failure?.message ?? '', /more than 29 entries/);
  t.notOk((await unpack(many, { maxEntries: 30 })).failure, 'the limit itself is fine');
  const bomb = gzipSync(Buffer.alloc(50_000_000));
  const { failure } = await unpack(bomb, { maxBytes: 1_000_000 });
  t.match(failure?.message ?? '', /unpacks to more than 1000000 bytes/);
});

t.test('refused: a layer whose content is another', async (t) => {
  const { failure } = await unpack(tarBytes(file('a')), { diffId: digestOf('other') });
  t.equal(failure?.code, 'LAYER_INVALID');
  t.match(failure?.message ?? '', /its image says/);
});

t.test('an aborted unpack leaves nothing', async (t) => {
  const { store, dataFolder } = await openStore();
  const bytes = tarBytes(file('big', { body: Buffer.alloc(20_000_000) }));
  await writeFile(join(dataFolder, 'blob'), bytes);
  const stop = new AbortController();
  const work = store.unpack(digestOf(bytes), join(dataFolder, 'blob'), stop.signal);
  setTimeout(() => stop.abort(new Error('enough')), 30);
  await t.rejects(work, { message: 'enough' });
  await new Promise((resolve) => setTimeout(resolve, 200));
  const left = await readdir(join(dataFolder, withoutRoot ? 'layers-partial' : 'layers'));
  t.strictSame(
    left.filter((entry) => entry !== '.whiteout'),
    [],
  );
});

async function unpacked(
  t: Test,
  ...parts: TarPart[]
): Promise<{ at: (name: string) => string; record: Awaited<ReturnType<typeof readLayerRecord>> }> {
  const { store, diffId, failure } = await unpack(tarBytes(...parts));
  t.equal(failure?.message, undefined);
  const root = store.path(diffId);
  return { at: (name) => join(root, name), record: await readLayerRecord(root) };
}

t.test('the last file may lack its padding and the end of the archive', async (t) => {
  // So writes `umoci insert`, and Go's archive/tar reads it.
  const first = tarPart(file('first'));
  const last = tarPart(file('last', { body: 'b'.repeat(700) }));
  for (const kept of [512 + 700, 512 + 700 + 100, last.length]) {
    const bytes = Buffer.concat([first, last.subarray(0, kept)]);
    const { store, diffId, failure } = await unpack(bytes);
    t.equal(failure?.message, undefined, `${kept} bytes of the last part`);
    t.equal(await readFile(join(store.path(diffId), 'first'), 'utf8'), 'evil');
    t.equal(await readFile(join(store.path(diffId), 'last'), 'utf8'), 'b'.repeat(700));
  }
  const cut = Buffer.concat([first, last.subarray(0, 512 + 699)]);
  t.equal((await unpack(cut)).failure?.code, 'LAYER_INVALID', 'a byte of the body is missing');
});

t.test('odd but legal', async (t) => {
  const { at } = await unpacked(
    t,
    file('/absolute/name'),
    file('./dot//twice'),
    file('d/../ok'.replace('d/../', ''), { magic: '' }),
    link('abs', '/etc/passwd'),
    link('up', '../../../../etc'),
    { name: 'sized/', type: '5', size: 5 },
    file('contiguous', { type: '7' }),
    file('behind'),
    { name: 'g', type: 'g', body: '13 path=../x\n' },
    file('after-global'),
    file('twin\u0301'),
    file('twi\u0144'),
    file('twice'),
    { ...file('twice'), body: 'second' },
    file('was-file'),
    { name: 'was-file/', type: '5' },
    file('was-file/inner'),
    { name: 'was-folder/', type: '5' },
    file('was-folder/inner'),
    file('was-folder'),
    hard('hard', 'behind'),
    link('sym', 'behind'),
    hard('hard-to-sym', 'sym'),
    { name: '.wh..wh.plnk' },
  );
  t.equal(await readFile(at('absolute/name'), 'utf8'), 'evil');
  t.equal(await readFile(at('dot/twice'), 'utf8'), 'evil');
  t.equal(readlinkSync(at('abs')), '/etc/passwd');
  t.equal(readlinkSync(at('up')), '../../../../etc');
  t.ok(statSync(at('sized')).isDirectory());
  t.ok(statSync(at('contiguous')).isFile());
  t.ok(statSync(at('after-global')).isFile(), 'global headers change no path');
  t.equal(readdirSync(at('.')).filter((name) => name.startsWith('twi')).length, 3);
  t.equal(await readFile(at('twice'), 'utf8'), 'second');
  t.ok(statSync(at('was-file/inner')).isFile());
  t.ok(statSync(at('was-folder')).isFile());
  t.equal(statSync(at('hard')).ino, statSync(at('behind')).ino);
  t.ok(lstatSync(at('hard-to-sym')).isSymbolicLink());
  t.notOk(readdirSync(at('.')).some((name) => name.startsWith('.wh.')));
});

t.test('bytes that are no UTF-8 stay as they are', async (t) => {
  const { at } = await unpacked(
    t,
    { name: Buffer.from([0x66, 0xff, 0xfe]), body: 'x' },
    { name: 'p', pax: { path: Buffer.from([0x70, 0xe9]) }, body: 'y' },
    { name: 'l', type: '2', linkname: 'q', pax: { linkpath: Buffer.from([0x71, 0xe8]) } },
  );
  const names = readdirSync(Buffer.from(at('.')), 'buffer').map((name) => name.toString('hex'));
  t.strictSame(names.sort(), ['66fffe', '6c', '70e9']);
  t.equal(readlinkSync(at('l'), 'buffer').toString('hex'), '71e8');
});

t.test('owners, modes, times', { skip: withoutRoot }, async (t) => {
  const { at, record } = await unpacked(
    t,
    { name: 'd/', type: '5', mode: 0o1777, uid: 7, gid: 8, mtime: 1_111_111_111 },
    file('d/su', { mode: 0o4755, uid: 1000, gid: 1001, pax: { mtime: '1234567890.5' } }),
    file('big-ids', { pax: { uid: '4000000000', gid: '3000000000' } }),
    { name: 'ro/', type: '5', mode: 0o500 },
    file('ro/inner'),
    file('implied/inner'),
    { name: 'fifo', type: '6', mode: 0o640 },
    { name: 'd/null', type: '3', devmajor: 1, devminor: 3, mode: 0o666 },
  );
  const su = statSync(at('d/su'));
  t.equal(su.mode & 0o7777, 0o4755);
  t.strictSame([su.uid, su.gid, su.mtimeMs], [1000, 1001, 1_234_567_890_500]);
  const d = statSync(at('d'));
  t.strictSame([d.mode & 0o7777, d.uid, d.gid, d.mtimeMs], [0o1777, 7, 8, 1_111_111_111_000]);
  t.strictSame([statSync(at('big-ids')).uid, statSync(at('big-ids')).gid], [4e9, 3e9]);
  t.equal(statSync(at('ro')).mode & 0o7777, 0o500);
  t.strictSame(record.implied.toSorted(), ['', 'implied']);
  t.equal(statSync(at('implied')).mode & 0o7777, 0o755);
  t.ok(statSync(at('fifo')).isFIFO());
  t.equal(statSync(at('d/null')).rdev, 0x103);
  t.strictSame(record.lacks, []);
});

t.test('whiteouts, opaque folders, attributes', { skip: withoutRoot }, async (t) => {
  const capability = Buffer.from('0100000280000000000000000000000000000000', 'hex');
  const { at, record } = await unpacked(
    t,
    { name: 'a/.wh.gone' },
    file('a/z', { pax: { 'SCHILY.xattr.security.capability': capability } }),
    { name: 'b/', type: '5' },
    file('b/new'),
    { name: 'b/.wh..wh..opq' },
    { name: '.wh.c' },
    file('c/again'),
    file('own'),
    { name: '.wh.own' },
    file('u', { pax: { 'SCHILY.xattr.user.note': 'hi', 'SCHILY.xattr.security.selinux': 'l' } }),
  );
  const gone = lstatSync(at('a/gone'));
  t.ok(gone.isCharacterDevice());
  t.equal(gone.rdev, 0);
  t.strictSame(record.opaque.toSorted(), ['b', 'c']);
  t.ok(lstatSync(at('own')).isFile(), 'what the layer has itself is not hidden');
  const attributes = (name: string): string =>
    execFileSync(debian.path('getfattr'), ['-d', '-m', '-', '-e', 'hex', at(name)], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  t.match(attributes('b'), 'trusted.overlay.opaque=0x79');
  t.match(attributes('c'), 'trusted.overlay.opaque=0x79');
  t.notMatch(attributes('a'), 'opaque');
  t.match(attributes('a/z'), `security.capability=0x${capability.toString('hex')}`, 'exact bytes');
  t.match(attributes('u'), 'user.note=0x6869');
  t.notMatch(attributes('u'), 'selinux=0x6c');
});

t.test('a plain user unpacks what is possible, and it is said', async (t) => {
  const dataFolder = join(base, `data${(made += 1)}`);
  const store = await LayerStore.open({
    dataFolder,
    host: new PlainHost(),
    chance: systemChance,
    reserveBytes: 0,
  });
  const bytes = tarBytes(file('f'), { name: '.wh.g' }, { name: 'p', type: '6' });
  await writeFile(join(dataFolder, 'blob'), bytes);
  await store.unpack(digestOf(bytes), join(dataFolder, 'blob'), never);
  const root = store.path(digestOf(bytes));
  t.match(root, /layers-partial/);
  t.equal(await readFile(join(root, 'f'), 'utf8'), 'evil');
  const { lacks } = await readLayerRecord(root);
  t.match(lacks.join(), /whiteouts.*device nodes/);
  t.ok(await stat(root));
});

t.test('PAX records', async (t) => {
  t.strictSame({ ...readPax(Buffer.from('9 a=b\nc=\n')) }, { a: 'b\nc=' });

  for (const bad of ['5 a=b', '0 a=b\n', '6 ab\n\n', '07 a=b\n', 'x'])
    t.throws(() => readPax(Buffer.from(bad)), { code: 'LAYER_INVALID' }, bad);
});
