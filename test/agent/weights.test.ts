// Declared weights over real HTTP on loopback, and the guard that keeps other people's URLs off private addresses (T7).
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Aliases } from '../../agent/content/aliases.ts';
import { ContentStore } from '../../agent/content/content-store.ts';
import { BlobFetcher } from '../../agent/content/fetch-blob.ts';
import {
  fetchWeights,
  type WeightEntry,
  type WeightsProgress,
} from '../../agent/weights/fetch-weights.ts';
import { HttpsOrigin } from '../../agent/weights/https-origin.ts';
import { AddressGuard, LOOPBACK } from '../../shared/address-guard.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock as clock } from '../../shared/clock.ts';
import { digestOf, hexOf } from '../../shared/digest.ts';
import { originConformance } from '../conformance/origin.ts';
import { startHttpScript, type Answering } from '../fakes/http-script.ts';

const never = new AbortController().signal;
const base = await mkdtemp(join(tmpdir(), 'runmesh-weights-'));
t.teardown(() => rm(base, { recursive: true, force: true }));
const local = new AddressGuard(LOOPBACK);
let made = 0;
async function openNode(guard = local) {
  const folder = join(base, `node${(made += 1)}`);
  const store = await ContentStore.open({ folder, chance: systemChance, reserveBytes: 0 });
  const backoff = { baseMs: 1, capMs: 2 };
  const fetcher = new BlobFetcher({ store, clock, chance: systemChance, backoff });
  const aliases = await Aliases.open({ folder: join(folder, 'aliases'), chance: systemChance });
  const seen: WeightsProgress[] = [];
  const progress = (now: WeightsProgress): void => void seen.push(now);
  const options = { store, fetcher, aliases, clock, guard, progress };
  const fetch = (entries: readonly WeightEntry[]) => fetchWeights(entries, options, never);
  return { store, fetcher, fetch, seen };
}

const body = Buffer.alloc(200_000, 'weights ');
const sha256 = hexOf(digestOf(body));
const serving =
  (bytes: Buffer = body, etag: string | null = '"v1"'): Answering =>
  (request, response) => {
    if (request.url?.startsWith('/missing')) return void response.writeHead(404).end();
    const { range, 'if-range': ifRange } = request.headers;
    const from = ifRange === etag ? Number(/bytes=([0-9]+)-/.exec(range ?? '')?.[1] ?? 0) : 0;
    const headers: Record<string, string> = {
      'content-length': String(bytes.length - from),
      ...(etag === null ? {} : { etag }),
    };
    if (from > 0) headers['content-range'] = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(from > 0 ? 206 : 200, headers);
    response.end(request.method === 'HEAD' ? undefined : bytes.subarray(from));
  };

t.test('with sha256: verified, mounted read-only, not fetched again', async (t) => {
  await using server = await startHttpScript(serving());
  const node = await openNode();
  const entries = [
    { from: `http://${server.host}/dir/model%20a.bin?sig=1`, sha256, to: '/data/models/' },
    { from: `http://${server.host}/b`, to: '/data/b' },
  ];
  const { files, pin, pulledBytes } = await node.fetch(entries);
  t.strictSame(
    files.map(({ target, readOnly }) => [target, readOnly]),
    [
      ['/data/models/model a.bin', true],
      ['/data/b', true],
    ],
  );
  for (const { source } of files) t.ok((await readFile(source)).equals(body));
  t.ok(pulledBytes >= body.length);
  t.ok(node.store.isPinned(digestOf(body)));
  t.strictSame(node.seen.at(-1), {
    doneBytes: 2 * body.length,
    totalBytes: 2 * body.length,
    doneFiles: 2,
    totalFiles: 2,
  });
  pin.release();
  t.notOk(node.store.isPinned(digestOf(body)));
  const gets = (): number => server.asked.filter(({ method }) => method === 'GET').length;
  const before = gets();
  t.equal((await node.fetch(entries)).pulledBytes, 0);
  t.equal(gets(), before, 'the one by its digest, the other by its ETag');
  t.ok(server.asked.every(({ authorization }) => authorization === undefined));
});

t.test('without sha256: another ETag is another file', async (t) => {
  let [bytes, etag]: [Buffer, string | null] = [body, '"v1"'];
  await using server = await startHttpScript((...args) => serving(bytes, etag)(...args));
  const node = await openNode();
  const entries = [{ from: `http://${server.host}/b`, to: '/data/b' }];
  await node.fetch(entries);
  [bytes, etag] = [Buffer.from('new'), '"v2"'];
  const changed = await node.fetch(entries);
  t.equal(await readFile(changed.files[0]?.source ?? '', 'utf8'), 'new');
  etag = null;
  await node.fetch(entries);
  const count = server.asked.length;
  await node.fetch(entries);
  t.equal(server.asked.at(-1)?.method, 'GET', 'no ETag: asked every time');
  t.ok(server.asked.length > count);
});

t.test('a transfer that breaks off goes on, unless the file has changed', async (t) => {
  for (const [second, expected] of [
    [body, body],
    [Buffer.from('quite another file'), Buffer.from('quite another file')],
  ] as const) {
    let gets = 0;
    await using server = await startHttpScript((request, response, count) => {
      if (request.method === 'HEAD') return void response.writeHead(405).end();
      gets += 1;
      if (gets > 1)
        return serving(second, second === body ? '"v1"' : '"v2"')(request, response, count);
      response.writeHead(200, { etag: '"v1"', 'content-length': String(body.length) });
      response.write(body.subarray(0, 70_000));
      setTimeout(() => response.destroy(), 50);
    });
    const node = await openNode();
    const { files } = await node.fetch([{ from: `http://${server.host}/b`, to: '/b' }]);
    t.ok((await readFile(files[0]?.source ?? '')).equals(expected));
    t.ok(server.asked.some(({ range }) => range === 'bytes=70000-'));
  }
});

t.test('failures name the entry', async (t) => {
  await using server = await startHttpScript(serving());
  const node = await openNode();
  const url = `http://${server.host}`;
  const cases: [WeightEntry, string, RegExp][] = [
    [{ from: 'hf://org/model', to: '/x' }, 'NOT_SUPPORTED', /weights\.1\.from: hf/],
    [{ from: 's3://bucket/x', to: '/x' }, 'NOT_SUPPORTED', /weights\.1\.from: s3/],
    [{ from: 'file:///etc/passwd', to: '/x' }, 'INPUT_INVALID', /weights\.1\.from/],
    [{ from: `${url}/`, to: '/x/' }, 'INPUT_INVALID', /weights\.1\.to/],
    [{ from: `${url}/a%2fb`, to: '/x/' }, 'INPUT_INVALID', /weights\.1\.to/],
    [{ from: `${url}/a`, to: '/x/../y' }, 'INPUT_INVALID', /weights\.1\.to/],
    [{ from: `${url}/a`, to: '/ok' }, 'INPUT_INVALID', /named twice/],
    [{ from: `${url}/a`, sha256: 'AB', to: '/x' }, 'INPUT_INVALID', /weights\.1\.sha256/],
    [{ from: 'http://u:p@127.0.0.1/a', to: '/x' }, 'INPUT_INVALID', /weights\.1: .*user name/],
    [{ from: `${url}/missing`, to: '/x' }, 'NOT_FOUND', /weights\.1: /],
    [{ from: `${url}/a`, sha256: '0'.repeat(64), to: '/x' }, 'DIGEST_MISMATCH', /weights\.1: /],
  ];
  for (const [entry, code, message] of cases) {
    const entries = [{ from: `${url}/a`, sha256, to: '/ok' }, entry];
    await t.rejects(node.fetch(entries), { code, message }, JSON.stringify(entry));
  }
  t.notOk(node.store.isPinned(digestOf(body)), 'no pin is left');
  t.equal(node.store.stats.ingesting, 0);
});

t.test('private addresses are not asked', async (t) => {
  await using server = await startHttpScript(serving());
  const node = await openNode(new AddressGuard());
  const { port } = server;
  for (const host of [
    '127.0.0.1',
    'localhost',
    '127.1',
    '2130706433',
    '0x7f.0.0.1',
    '0177.0.0.1',
    '0.0.0.0',
    '[::ffff:127.0.0.1]',
    '[::ffff:7f00:1]',
    '[64:ff9b::7f00:1]',
    '[2002:7f00:1::]',
    '[::1]',
    '[::]',
    '169.254.169.254',
    '10.0.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '[fe80::1]',
    '[fd00::1]',
  ]) {
    const entries = [{ from: `http://${host}:${port}/x`, to: '/x' }];
    await t.rejects(node.fetch(entries), { code: 'ORIGIN_FORBIDDEN_ADDRESS' }, host);
  }
  t.equal(server.asked.length, 0);
  await t.test('also after a redirect', async (t) => {
    await using first = await startHttpScript((_, response) => {
      response.writeHead(302, { location: `http://127.0.0.2:${port}/x` }).end();
    });
    const one = await openNode(new AddressGuard(['127.0.0.1']));
    const entries = [{ from: `http://${first.host}/x`, to: '/x' }];
    await t.rejects(one.fetch(entries), { code: 'ORIGIN_FORBIDDEN_ADDRESS' });
    t.equal(server.asked.length, 0);
  });
});

t.test('the guard', async (t) => {
  const guard = new AddressGuard();
  for (const open of ['8.8.8.8', '2606:4700::1111', '::ffff:8.8.8.8', '64:ff9b::808:808'])
    t.ok(guard.allows(open), open);
  for (const closed of [
    '198.18.0.1',
    '192.0.2.1',
    '224.0.0.1',
    '255.255.255.255',
    '2001:db8::1',
    '2001::1',
    '64:ff9b:1::808:808',
    '::10.0.0.1',
    'fec0::1',
    'ff02::1',
    '100::1',
    'fe80::1%eth0',
    'localhost',
    '',
  ])
    t.notOk(guard.allows(closed), closed);
  const listed = new AddressGuard(['10.1.0.0/16', 'fd00::/8', '192.168.7.7', 'models.internal']);
  for (const open of ['10.1.2.3', '::ffff:10.1.2.3', 'fd12::1', '192.168.7.7'])
    t.ok(listed.allows(open), open);
  for (const closed of ['10.2.0.1', '192.168.7.8']) t.notOk(listed.allows(closed), closed);
  t.throws(() => new AddressGuard(['what is this']), { code: 'CONFIG_INVALID' });
});

t.test('the https origin conforms', async (t) => {
  const server = await startHttpScript(serving());
  const dispatcher = local.agent();
  t.teardown(async () => {
    await dispatcher.destroy();
    await server[Symbol.asyncDispose]();
  });
  const url = `http://${server.host}/x?sig=secret`;
  const origin = new HttpsOrigin({ url, guard: local, dispatcher, clock });
  originConformance(t, { origin, blob: body, byDigest: false, missing: 'NOT_FOUND' });
});
