// The node's cache and the drivers that run what is in it: the real materials of an agent, put together.
import { join } from 'node:path';
import { AddressGuard } from '../../shared/address-guard.ts';
import type { Chance } from '../../shared/chance.ts';
import type { Clock } from '../../shared/clock.ts';
import type { Log } from '../../shared/log.ts';
import { platformOf } from '../../shared/registry/manifest.ts';
import type { CoordinatorHttp } from '../attempt/coordinator-http.ts';
import { Aliases } from '../content/aliases.ts';
import { CacheStats } from '../content/cache-stats.ts';
import { ContentStore } from '../content/content-store.ts';
import { CoordinatorOrigin } from '../content/coordinator-origin.ts';
import { BlobFetcher } from '../content/fetch-blob.ts';
import { FolderStore } from '../content/folder-store.ts';
import type { Host } from '../host/host.ts';
import { ImagePuller } from '../image/image-puller.ts';
import { LayerStore } from '../image/layer-store.ts';
import { CachedMaterials, type CachedMaterialsParts } from '../runner/cached-materials.ts';
import { fetchWeights } from '../weights/fetch-weights.ts';

export interface CacheParts {
  /** The data folder, absolute. */
  data: string;
  host: Host;
  clock: Clock;
  chance: Chance;
  log: Log;
  coordinator: CoordinatorHttp;
  /** Private addresses that weights may come from. */
  allowPrivate: readonly string[];
  imagesChanged(): void;
  pulled(outcome: 'done' | 'failed'): void;
}

export interface NodeCache {
  materials: CachedMaterials;
  blobs: ContentStore;
  bytesBySource(): Record<string, number>;
  stats(): Record<string, unknown>;
}

export async function openCache(parts: CacheParts, signal: AbortSignal): Promise<NodeCache> {
  const { data, host, clock, chance, log } = parts;
  const store = await ContentStore.open({ folder: join(data, 'content'), chance });
  const aliases = await Aliases.open({ folder: join(data, 'aliases'), chance });
  const stats = new CacheStats();
  const fetcher = new BlobFetcher({ store, clock, chance, stats });
  const layers = await LayerStore.open({ dataFolder: data, host, chance });
  const folders = await FolderStore.open({ dataFolder: data, store, fetcher, chance });
  const platform = platformOf(process.arch === 'x64' ? 'amd64' : process.arch);
  const guard = new AddressGuard(parts.allowPrivate);
  const materials = new CachedMaterials({
    puller: new ImagePuller({ store, fetcher, layers, clock, platform }),
    folders: foldersFrom(folders, parts.coordinator),
    weights: (entries, progress, signal) =>
      fetchWeights(entries, { store, fetcher, aliases, clock, guard, progress }, signal),
    clock,
    log,
    record: join(data, 'images.json'),
    imagesChanged: parts.imagesChanged,
    pulled: parts.pulled,
  });
  await materials.open(signal);
  return {
    materials,
    blobs: store,
    bytesBySource: () =>
      Object.fromEntries(
        Object.entries(stats.sources).map(([source, { bytes }]) => [source, bytes]),
      ),
    stats: () => ({
      ...stats.snapshot(),
      content: store.stats,
      layers: layers.inventory().length,
      images: materials.images(),
    }),
  };
}

function foldersFrom(
  folders: FolderStore,
  coordinator: CoordinatorHttp,
): CachedMaterialsParts['folders'] {
  return {
    has: ({ digest }) => folders.has(digest),
    async fetch({ digest, sizeBytes, grant }, tell, signal) {
      const origin = new CoordinatorOrigin({ ...coordinator, token: grant });
      const progress = ({ doneBytes }: { doneBytes: number }): void => tell(doneBytes);
      const { path, pin } = await folders.get({ digest, sizeBytes, origin, progress }, signal);
      return { folder: path, pin };
    },
  };
}
