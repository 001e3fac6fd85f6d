// Folders that a layer uses but does not describe. Each layer is unpacked alone, so such a folder was made with plain
// attributes, and in an overlay the topmost folder's attributes show: /tmp would lose its 1777. The runner's own upper
// folder is the place to put it right, because layers are shared: there, the folder is made with the attributes of
// the nearest layer below that describes it. Extended attributes are not copied.
import { chmod, lchown, lstat, lutimes, mkdir } from 'node:fs/promises';
import type { Stats } from 'node:fs';
import { ROOT, bytesOfText, onDisk, parentOf, type BytePath } from './byte-path.ts';
import { readLayerRecord, type LayerRecord } from './layer-store.ts';

interface MountedLayer {
  root: BytePath;
  implied: ReadonlySet<BytePath>;
  opaque: ReadonlySet<BytePath>;
}

/** What a layer says about a folder: describes it, ends the search, or leaves it to the layers below. */
type Word =
  { kind: 'described'; stats: Stats } | { kind: 'ends' } | { kind: 'below'; has: boolean };

/** Makes in `upper` (empty, the overlay's upper folder) what the layers leave open. Topmost layer first. */
export async function makeImpliedFolders(
  upper: string,
  layerFolders: readonly string[],
): Promise<void> {
  const layers: MountedLayer[] = [];
  for (const folder of layerFolders) {
    const record: LayerRecord = await readLayerRecord(folder);
    layers.push({
      root: bytesOfText(folder),
      implied: new Set(record.implied),
      opaque: new Set(record.opaque),
    });
  }
  const root = bytesOfText(upper);
  const made = new Set<BytePath>([ROOT]);
  const rootStats = (await search(layers, ROOT)).stats;
  if (rootStats) await giveAttributes(onDisk(root, ROOT), rootStats);
  const implied = new Set(layers.flatMap((layer) => [...layer.implied]));
  for (const path of [...implied].sort()) {
    const { stats, isImplied } = await search(layers, path);
    if (stats && isImplied) await makeFolder(layers, root, path, made);
  }
}

async function makeFolder(
  layers: readonly MountedLayer[],
  root: BytePath,
  path: BytePath,
  made: Set<BytePath>,
): Promise<void> {
  if (made.has(path)) return;
  await makeFolder(layers, root, parentOf(path), made);
  const { stats } = await search(layers, path);
  const place = onDisk(root, path);
  await mkdir(place, { mode: 0o755 });
  made.add(path);
  if (stats) await giveAttributes(place, stats);
  const parent = (await search(layers, parentOf(path))).stats;
  if (parent) await lutimes(onDisk(root, parentOf(path)), parent.mtime, parent.mtime);
}

async function giveAttributes(place: Buffer, stats: Stats): Promise<void> {
  await lchown(place, stats.uid, stats.gid);
  await chmod(place, stats.mode & 0o7777);
  await lutimes(place, stats.mtime, stats.mtime);
}

/** The attributes that `path` should show, and whether the topmost layer that has it only implies it. */
async function search(
  layers: readonly MountedLayer[],
  path: BytePath,
): Promise<{ stats?: Stats; isImplied: boolean }> {
  let isImplied = false;
  for (const layer of layers) {
    const word = await ask(layer, path);
    if (word.kind === 'ends') return { isImplied };
    if (word.kind === 'described') return { stats: word.stats, isImplied };
    isImplied ||= word.has;
  }
  return { isImplied };
}

/** Walks to `path` in one layer. A whiteout, a file, or an opaque folder on the way hides what is below. */
async function ask(layer: MountedLayer, path: BytePath): Promise<Word> {
  const steps: BytePath[] = [];
  for (let at = path; ; at = parentOf(at)) {
    steps.unshift(at);
    if (at === ROOT) break;
  }
  let isOpaque = false;
  for (const step of steps) {
    const stats = await lstat(onDisk(layer.root, step)).catch(() => undefined);
    if (!stats) return isOpaque ? { kind: 'ends' } : { kind: 'below', has: false };
    if (!stats.isDirectory()) return { kind: 'ends' };
    isOpaque ||= layer.opaque.has(step);
    if (step !== path) continue;
    if (!layer.implied.has(path)) return { kind: 'described', stats };
    return isOpaque ? { kind: 'ends' } : { kind: 'below', has: true };
  }
  return { kind: 'below', has: false };
}
