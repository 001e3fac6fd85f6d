// Reads the repository for the tidy test.

import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Source } from './source.ts';
import type { Tree } from './rules.ts';

/** The folders whose sources the rules hold for. */
const FOLDERS = ['agent', 'coordinator', 'shared', 'cli', 'examples', 'systemd'];

/** What the repository at `root` holds: the product, and the tests for the rules about tests. */
export function readTree(root: string): Tree & { readonly tests: readonly Source[] } {
  const read = (folder: string): Source[] =>
    globSync(`${folder}/**/*.{ts,mts,mjs,js}`, { cwd: root })
      .filter((path) => !path.includes('node_modules/'))
      .sort()
      .map((path) => new Source(path, readFileSync(join(root, path), 'utf8')));
  const sources = FOLDERS.flatMap(read);
  const folders = new Set(sources.map((source) => source.folder));
  const readmeFolders = new Set(
    [...folders].filter((folder) => existsSync(join(root, folder, 'README.md'))),
  );
  return { sources, tests: read('test'), readmeFolders, packagesFor: packagesFor(root) };
}

/** The product may use `dependencies`; an example what its own package.json, or ours, names. */
function packagesFor(root: string): Tree['packagesFor'] {
  return (path) => {
    let folder = dirname(path);
    while (folder !== '.' && !existsSync(join(root, folder, 'package.json'))) {
      folder = dirname(folder);
    }
    const manifest = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')) as {
      dependencies?: Record<string, string>;
      devDependencies?: Record<string, string>;
    };
    const isExample = path.startsWith('examples/');
    const development = isExample ? manifest.devDependencies : undefined;
    return new Set(Object.keys({ ...manifest.dependencies, ...development }));
  };
}
