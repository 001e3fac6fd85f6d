// Payload files: named by content, durable when named, bounded (P1–P4).
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { openPayloadStore } from '../../coordinator/payload/payload-store.ts';
import { systemChance } from '../../shared/chance.ts';
import { digestOf, hexOf } from '../../shared/digest.ts';

const folder = await mkdtemp(join(tmpdir(), 'runmesh-payload-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));

async function* chunks(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

async function textOf(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const all: Uint8Array[] = [];
  for await (const chunk of bytes) all.push(chunk);
  return Buffer.concat(all).toString();
}

const leftovers = () => readdir(join(folder, 'tmp'));

t.test('what is written is found by its digest', async (t) => {
  const store = await openPayloadStore(folder, systemChance);
  const stored = await store.write(chunks('one ', 'two'), { maxBytes: 100 });
  t.same(stored, { digest: digestOf('one two'), sizeBytes: 7 });
  t.ok(await store.has(stored.digest));
  const { sizeBytes, bytes } = await store.open(stored.digest);
  t.equal(sizeBytes, 7);
  t.equal(await textOf(bytes), 'one two');
  const hex = hexOf(stored.digest);
  t.same(await readdir(join(folder, hex.slice(0, 2))), [hex]);
  t.notOk(await store.has(digestOf('never')));
  await t.rejects(store.open(digestOf('never')), { code: 'NOT_FOUND' });
});

t.test('two writers of one digest both succeed', async (t) => {
  const store = await openPayloadStore(folder, systemChance);
  const both = await Promise.all([
    store.write(chunks('sa', 'me'), { maxBytes: 10 }),
    store.write(chunks('s', 'ame'), { maxBytes: 10 }),
  ]);
  t.equal(both[0].digest, both[1].digest);
  t.same(await leftovers(), []);
});

t.test('refusals leave nothing', async (t) => {
  const store = await openPayloadStore(folder, systemChance);
  await t.rejects(store.write(chunks('12345', '6'), { maxBytes: 5 }), { code: 'INPUT_TOO_LARGE' });
  await t.rejects(store.write(chunks('x'), { maxBytes: 5, expect: digestOf('y') }), {
    code: 'INPUT_INVALID',
  });
  async function* breaks(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('half');
    throw new Error('the sender went away');
  }
  await t.rejects(store.write(breaks(), { maxBytes: 100 }), { message: 'the sender went away' });
  t.same(await leftovers(), []);
  t.notOk(await store.has(digestOf('half')));
});

t.test('at most so many at once; the place is given back', async (t) => {
  const store = await openPayloadStore(folder, systemChance, 2);
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  async function* waits(text: string): AsyncGenerator<Uint8Array> {
    await held;
    yield Buffer.from(text);
  }
  const writing = [
    store.write(waits('a'), { maxBytes: 9 }),
    store.write(waits('b'), { maxBytes: 9 }),
  ];
  await t.rejects(store.write(chunks('c'), { maxBytes: 9 }), { code: 'UNAVAILABLE' });
  release();
  await Promise.all(writing);
  await store.write(chunks('c'), { maxBytes: 9 });
});

t.test('what an earlier life left unfinished is removed; what it finished stays', async (t) => {
  const temporary = join(folder, 'tmp');
  await mkdir(temporary, { recursive: true });
  await writeFile(join(temporary, 'left'), 'x');
  const store = await openPayloadStore(folder, systemChance);
  t.same(await leftovers(), []);
  t.ok(await store.has(digestOf('one two')));
});

t.test('a full disk is DISK_FULL', async (t) => {
  const store = await openPayloadStore(folder, systemChance);
  async function* full(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('x');
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  }
  await t.rejects(store.write(full(), { maxBytes: 9 }), { code: 'DISK_FULL', status: 507 });
});
