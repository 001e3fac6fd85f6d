// The main job, end to end: `npm run demo`. A coordinator, two agents with separate caches, a registry and an origin of weights on
// loopback; a real model in a real image, called with fal's own client; cold, warm, and cold again with the image cached.
// Everything that is started is ended, also on Ctrl-C.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { skipWithoutRoot, tools, toolsFolder, type Tools } from '../../test/tools/tools.ts';
import { buildImages, imageTools } from '../images/build-images.ts';
import { push, startRegistry } from '../images/registry.ts';
import { serveWeights } from '../images/weights-server.ts';
import { falClient } from './fal-client.ts';
import { startMesh, until, type Mesh } from './programs.ts';
import { StateLines } from './state-lines.ts';

const EXAMPLES = join(import.meta.dirname, '..');
const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function main(): Promise<void> {
  await using ends = new AsyncDisposableStack();
  const interrupted = new Promise<never>((_resolve, reject) => {
    // A terminal sends Ctrl-C to npm and to us, and npm passes it on: what comes again must not cut the cleaning short.
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.on(signal, () => reject(new Error(`stopped by ${signal}`)));
  });
  interrupted.catch(() => say('\ncleaning up'));
  await Promise.race([demo(ends), interrupted]);
}

async function demo(ends: AsyncDisposableStack): Promise<void> {
  const began = Date.now();
  say('runmesh demo: everything on loopback, in a folder of its own, gone at the end\n');
  const debian = await tools(['runtime', 'images'], { say });
  const noContainers =
    debian.lacks('runc', 'conmon', 'ip', 'nft', ...imageTools) || (await skipWithoutRoot());
  const folder = await mkdtemp(join(tmpdir(), 'runmesh-demo-'));
  ends.defer(() => rm(folder, { recursive: true, force: true }));

  const mesh = await startMesh({ folder, agents: ['node-a', 'node-b'], env: debian.env() });
  ends.defer(() => mesh.stop());
  say(`a coordinator at ${mesh.url} and two agents, node-a and node-b\n`);

  await bareProcess(mesh);
  if (noContainers) say(`\nthe container part is skipped: ${noContainers}`);
  else await realModel(mesh, debian, folder, ends);
  say(`\ndone in ${((Date.now() - began) / 1000).toFixed(1)} s; stopping what was started`);
}

/** The smallest app: a command in a folder. */
async function bareProcess(mesh: Mesh): Promise<void> {
  say('1. a bare process (examples/hello)');
  await mesh.cli('deploy', join(EXAMPLES, 'hello', 'app.yaml'));
  const { data } = await call(mesh, 'demo/hello', { name: 'world' });
  say(`   result: ${JSON.stringify(data)}`);
}

/** A real model on the CPU, as an OCI image, its weights declared in the app file. */
async function realModel(
  mesh: Mesh,
  debian: Tools,
  folder: string,
  ends: AsyncDisposableStack,
): Promise<void> {
  say('\n2. a real model (examples/ocr: reads text in pictures with ONNX Runtime)');
  const images = await buildImages({
    tools: debian,
    out: join(toolsFolder(), 'images'),
    say: (line) => say(`   ${line}`),
  });
  const registry = await startRegistry({ tools: debian, dataDir: join(folder, 'registry') });
  ends.defer(() => registry.stop());
  await push(debian, images.ocr, `${registry.host}/demo/ocr:1`);
  const weights = await serveWeights(images.weights);
  ends.defer(() => weights.stop());
  const file = join(folder, 'ocr.yaml');
  const text = await readFile(join(EXAMPLES, 'ocr', 'app.yaml'), 'utf8');
  await writeFile(
    file,
    text
      .replaceAll('127.0.0.1:5000', registry.host)
      .replaceAll('http://127.0.0.1:5001', weights.url),
  );
  say(`   image pushed to a registry at ${registry.host}; weights served at ${weights.url}`);
  say(indent(await mesh.cli('deploy', file)));

  const picture = await readFile(join(EXAMPLES, 'ocr', 'receipt.png'));
  const input = { image: `data:image/png;base64,${picture.toString('base64')}` };
  say('\n   cold: the image and the weights are on no node yet');
  const cold = await call(mesh, 'demo/ocr', input);
  say('\n   what the model read in examples/ocr/receipt.png:');
  for (const line of linesOf(cold.data)) say(`     ${line}`);
  say('\n   warm: the same call again');
  const warm = await call(mesh, 'demo/ocr', input);
  say('\n   cold again on the same node: the runner is stopped, its image and weights are cached');
  await stopRunners(mesh, 'demo/ocr');
  const again = await call(mesh, 'demo/ocr', input);
  const skipped = !again.states.includes('DOCKER_PULL');
  say(`\n   cold ${cold.ms} ms, warm ${warm.ms} ms, cold with everything cached ${again.ms} ms`);
  say(
    `   DOCKER_PULL on the second cold start: ${skipped ? 'skipped, as it should be' : 'NOT skipped'}`,
  );
  if (!skipped) throw new Error('the second cold start pulled the image again');
  say('\n' + indent(await mesh.cli('runners', '--all')));
}

interface Called {
  data: unknown;
  ms: number;
  states: string[];
}

/** Calls an app as any caller would, and tells every change of state. */
async function call(mesh: Mesh, app: string, input: Record<string, unknown>): Promise<Called> {
  const lines = new StateLines(mesh, app, (line) => say(`   ${line}`));
  await lines.start();
  const began = Date.now();
  let status = '';
  try {
    const { data } = await falClient(mesh.url).subscribe(app, {
      input,
      mode: 'polling',
      pollInterval: 50,
      onQueueUpdate: (update) => {
        if (update.status !== status) lines.line(`request ${update.status}`);
        status = update.status;
      },
    });
    return { data, ms: Date.now() - began, states: lines.seen };
  } finally {
    await lines.stop();
  }
}

async function stopRunners(mesh: Mesh, app: string): Promise<void> {
  const list = async (): Promise<{ id: string }[]> => {
    const response = await fetch(`${mesh.url}/v1/runners?app=${encodeURIComponent(app)}`);
    return ((await response.json()) as { items: { id: string }[] }).items;
  };
  for (const { id } of await list()) await mesh.cli('runners', 'stop', id);
  await until(`the runners of ${app} are gone`, async () => (await list()).length === 0);
}

function linesOf(data: unknown): string[] {
  const { lines } = data as { lines: { text: string }[] };
  return lines.map(({ text }) => text);
}

function indent(text: string): string {
  return text.trimEnd().replaceAll(/^/gm, '   ');
}

const code = await main().then(
  () => 0,
  (thrown: unknown) => {
    process.stderr.write(`\n${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
    return 1;
  },
);
// A call that was interrupted may still be polling: nothing waits for it.
process.exit(code);
