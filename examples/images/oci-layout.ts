// Puts layers and a config together into an OCI layout, with umoci.
import { mkdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Tools } from '../../test/tools/tools.ts';
import { LAYER_DATE, type RootFolder } from './root-folder.ts';
import { run } from './run.ts';

export interface ImageConfig {
  entrypoint?: readonly string[];
  cmd?: readonly string[];
  env?: Readonly<Record<string, string>>;
  folder?: string;
  port?: number;
}

/** Words of the image specification for this machine. */
const ARCHITECTURE = process.arch === 'x64' ? 'amd64' : process.arch;

/** Writes an image into `layout` (made anew) under `tag`; one layer a root folder, lowest first. */
export async function writeLayout(
  tools: Tools,
  layout: string,
  tag: string,
  layers: readonly RootFolder[],
  config: ImageConfig,
): Promise<void> {
  rmSync(layout, { recursive: true, force: true });
  mkdirSync(dirname(layout), { recursive: true });
  const umoci = (...args: string[]): Promise<string> => run(tools.path('umoci'), args);
  const image = ['--image', `${layout}:${tag}`];
  // Without root the builder's own uid must not end up in the layers.
  const rootless = process.getuid?.() === 0 ? [] : ['--rootless'];
  await umoci('init', '--layout', layout);
  await umoci('new', ...image);
  for (const layer of layers)
    await umoci('insert', ...image, ...rootless, '--history.created', LAYER_DATE, layer.path, '/');
  const repeated = (flag: string, values: readonly string[] = []): string[] =>
    values.flatMap((value) => [`--config.${flag}`, value]);
  const env = Object.entries(config.env ?? {}).map(([name, value]) => `${name}=${value}`);
  await umoci(
    'config',
    ...image,
    ...['--no-history', '--created', LAYER_DATE, '--os', 'linux', '--architecture', ARCHITECTURE],
    ...repeated('entrypoint', config.entrypoint),
    ...repeated('cmd', config.cmd),
    ...repeated('env', env),
    ...repeated('workingdir', config.folder === undefined ? [] : [config.folder]),
    ...repeated('exposedports', config.port === undefined ? [] : [`${config.port}/tcp`]),
  );
  await umoci('gc', '--layout', layout);
}
