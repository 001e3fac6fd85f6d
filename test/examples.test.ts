// The examples work as they are: the hello app, the OCR app on its own picture with its real models, and what builds,
// pushes and serves their bytes. The whole way through runmesh is the system test's.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { buildBusyboxImage, ocrPackages } from '../examples/images/build-images.ts';
import { push, startRegistry } from '../examples/images/registry.ts';
import { serveWeights } from '../examples/images/weights-server.ts';
import { parseAppFile } from '../shared/app-file.ts';
import type { AppSpec } from '../shared/app-spec.ts';
import { tools, toolsFolder } from './tools/tools.ts';

const examples = join(import.meta.dirname, '../examples');
const folder = mkdtempSync(join(tmpdir(), 'runmesh-examples-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

const appFile = (name: string): AppSpec => {
  const path = join(examples, name, 'app.yaml');
  return parseAppFile(readFileSync(path, 'utf8'), path);
};

/** Starts a server of an example; resolves to its URL when it says that it listens. */
async function serve(
  test: Pick<typeof t, 'teardown'>,
  path: string,
  env: Record<string, string>,
): Promise<string> {
  const child = spawn(process.execPath, [path], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env['PATH'] ?? '', PORT: '0', ...env },
  });
  test.teardown(async () => {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
  });
  for await (const line of createInterface(child.stdout)) {
    const port = /"listening","port":(\d+)/.exec(line)?.[1];
    if (port === undefined) continue;
    child.stdout.resume();
    return `http://127.0.0.1:${port}`;
  }
  throw new Error(`${path} ended before it listened`);
}

interface Answer {
  status: number;
  body: Record<string, unknown>;
}

async function post(url: string, body: string, id = 'a'): Promise<Answer> {
  const response = await fetch(url, { method: 'POST', body, headers: { 'x-fal-request-id': id } });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

t.test('hello: answers, streams, is cancelled', async (t) => {
  t.match(appFile('hello'), { app: 'demo/hello', command: ['node', 'server.mjs'], dir: '.' });
  const url = await serve(t, join(examples, 'hello/server.mjs'), {});
  t.equal((await fetch(`${url}/health`)).status, 200);
  const hello = await post(`${url}/`, '{"name":"Ada"}');
  t.match(hello, { status: 200, body: { greeting: 'Hello, Ada!', input: { name: 'Ada' } } });
  t.equal((await post(`${url}/`, '')).status, 200, 'an empty body is an empty input');
  t.equal((await post(`${url}/`, '{')).status, 422);
  t.equal((await post(`${url}/fail`, '{"status":503}')).status, 503);
  t.equal((await post(`${url}/nowhere`, '')).status, 404);
  const stream = await fetch(`${url}/stream`, { method: 'POST', body: '{"count":2}' });
  t.equal(await stream.text(), 'data: {"at":1,"of":2}\n\ndata: {"at":2,"of":2}\n\n');
  const slow = post(`${url}/slow`, '{"ms":30000}', 'slow');
  let cancelled = await post(`${url}/slow/cancel`, '', 'slow');
  while (cancelled.status === 404) cancelled = await post(`${url}/slow/cancel`, '', 'slow');
  t.equal((await slow).status, 499);
});

/** What the OCR app's modules export; they are plain JavaScript. */
interface OcrModules {
  boxesOf(
    map: Float32Array,
    width: number,
    height: number,
  ): { x: number; y: number; width: number; height: number }[];
  inReadingOrder<T>(boxes: T[]): T[];
  bestPath(
    probabilities: Float32Array,
    classes: number,
    alphabet: string[],
  ): { text: string; confidence: number };
  alphabetOf(keys: string): string[];
  decodeDataUri(uri: unknown): { width: number; height: number; rgb: Uint8Array };
}

t.test('ocr: reads the receipt', async (t) => {
  const packages = await ocrPackages({ out: join(toolsFolder(), 'images') });
  const app = join(folder, 'ocr');
  mkdirSync(join(app, 'models'), { recursive: true });
  for (const name of readdirSync(join(examples, 'ocr')).filter((file) => file.endsWith('.mjs')))
    copyFileSync(join(examples, 'ocr', name), join(app, name));
  symlinkSync(join(packages.folder, 'node_modules'), join(app, 'node_modules'));

  await t.test('its weights are those of the app file', async (t) => {
    const weightsServer = await serveWeights(packages.weights);
    t.teardown(() => weightsServer.stop());
    for (const { from, sha256, to } of appFile('ocr').weights) {
      const response = await fetch(`${weightsServer.url}${new URL(from).pathname}`);
      const bytes = new Uint8Array(await response.arrayBuffer());
      t.equal(createHash('sha256').update(bytes).digest('hex'), sha256, to);
      writeFileSync(join(app, to.replace('/data/', '')), bytes);
    }
    t.equal(weightsServer.served(), 3);
    const keys = `${weightsServer.url}/ppocr_keys_v1.txt`;
    const part = await fetch(keys, { headers: { range: 'bytes=10-19' } });
    t.equal(part.status, 206);
    t.match(part.headers.get('content-range'), /^bytes 10-19\/26249$/);
    t.equal((await part.arrayBuffer()).byteLength, 10);
    t.equal((await fetch(keys, { headers: { range: 'bytes=99999-' } })).status, 416);
    t.equal((await fetch(`${weightsServer.url}/../package.json`)).status, 404);
  });

  const files = ['find-text.mjs', 'read-text.mjs', 'picture.mjs'].map(
    (name) => import(join(app, name)),
  );
  const modules = Object.assign({}, ...(await Promise.all(files))) as OcrModules;
  const uri = `data:image/png;base64,${readFileSync(join(examples, 'ocr/receipt.png')).toString('base64')}`;

  await t.test('decodes pictures, refuses what is none', async (t) => {
    const { width, height, rgb } = modules.decodeDataUri(uri);
    t.equal(rgb.length, width * height * 3);
    t.throws(() => modules.decodeDataUri(undefined), /expected a data URI/);
    t.throws(() => modules.decodeDataUri('data:image/png;base64,AAAA'), /no PNG/);
    t.throws(() => modules.decodeDataUri('data:image/jpeg;base64,AAAA'), /cannot be decoded/);
  });

  await t.test('finds boxes and letters in what the models give', async (t) => {
    const map = new Float32Array(40 * 20);
    for (let x = 5; x < 25; x += 1) for (let y = 8; y < 12; y += 1) map[y * 40 + x] = 0.9;
    map[39] = 0.9; // too small
    for (let x = 30; x < 38; x += 1) for (let y = 14; y < 19; y += 1) map[y * 40 + x] = 0.4; // too unsure
    const [box, ...others] = modules.boxesOf(map, 40, 20);
    t.equal(others.length, 0);
    t.ok(
      box && box.x < 5 && box.x > 0 && box.x + box.width > 25 && box.height > 4,
      JSON.stringify(box),
    );
    const at = (name: string, x: number, y: number) => ({ name, x, y, width: 10, height: 10 });
    const order = modules.inReadingOrder([
      at('c', 5, 40),
      at('b', 50, 2),
      at('a', 0, 0),
      at('d', 60, 38),
    ]);
    t.equal(order.map(({ name }) => name).join(''), 'abcd');
    const alphabet = modules.alphabetOf('a\nb\n');
    t.same(alphabet, ['', 'a', 'b', ' ']);
    const steps = [1, 1, 0, 1, 3, 2, 2].flatMap((best) =>
      [0, 1, 2, 3].map((c) => (c === best ? 0.7 : 0.1)),
    );
    const { text, confidence } = modules.bestPath(Float32Array.from(steps), 4, alphabet);
    t.equal(text, 'aa b', 'repeats are one letter unless a blank parts them');
    t.ok(Math.abs(confidence - 0.7) < 1e-6);
  });

  const url = await serve(t, join(app, 'server.mjs'), { MODELS: join(app, 'models') });
  t.equal((await fetch(`${url}/health`)).status, 200);
  const { status, body } = await post(`${url}/`, JSON.stringify({ image: uri }));
  t.equal(status, 200);
  const lines = body['lines'] as { text: string; confidence: number }[];
  const texts = lines.map(({ text }) => text);
  t.equal(texts[0], 'CORNER BAKERY');
  t.ok(
    texts.includes('Cinnamon roll x2') && texts.includes('Paid by card ending 4471'),
    texts.join(' | '),
  );
  t.equal(texts[texts.indexOf('TOTAL') + 1], 'GBP 18.20');
  t.ok(lines.every(({ confidence }) => confidence > 0.9));
  t.equal((await post(`${url}/`, JSON.stringify({ image: 'nothing' }))).status, 422);
});

const debian = await tools(['images']);
const skip = debian.lacks('umoci', 'skopeo', 'docker-registry', 'busybox');
t.test('images: built, kept, pushed', { skip }, async (t) => {
  const first = await buildBusyboxImage({ tools: debian, out: join(folder, 'a') });
  t.equal(first.isNew, true);
  t.equal((await buildBusyboxImage({ tools: debian, out: join(folder, 'a') })).isNew, false);
  const second = await buildBusyboxImage({ tools: debian, out: join(folder, 'b') });
  t.equal(
    readIndex(second.layout),
    readIndex(first.layout),
    'the same content has the same digest',
  );

  const registry = await startRegistry({ tools: debian, dataDir: join(folder, 'registry') });
  t.teardown(() => registry.stop());
  const { image = '' } = appFile('busybox');
  const name = image.replace(/^127\.0\.0\.1:5000\//, '').replace(/:1$/, '');
  await push(debian, first, `${registry.host}/${name}:1`);
  const accept = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = await fetch(`${registry.url}/v2/${name}/manifests/1`, { headers: { accept } });
  t.equal(manifest.status, 200);
  t.ok(
    readIndex(first.layout).includes(manifest.headers.get('docker-content-digest') ?? 'no digest'),
  );
  await registry.stop();
  await registry.stop();
  await t.rejects(fetch(registry.url));
  t.notOk(existsSync(join(folder, 'a', `stage-busybox-${process.pid}`)));
});

const readIndex = (layout: string): string => readFileSync(join(layout, 'index.json'), 'utf8');
