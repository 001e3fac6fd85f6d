// The image of the cold start: Debian's static busybox and one page, nothing else. Ours pulls it from a registry; the
// rival gets the same files as a plain folder.
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { writeLayout } from '../../examples/images/oci-layout.ts';
import { push, startRegistry } from '../../examples/images/registry.ts';
import { RootFolder } from '../../examples/images/root-folder.ts';
import type { RowParts } from './row.ts';

export const PAGE = 'a page of the bench\n';
/** What serves it, on a port. */
export const serverArgs = (port: number): string[] => [
  ...['/bin/busybox', 'httpd', '-f', '-p', String(port)],
  ...['-h', '/www'],
];

export interface StaticImage {
  /** Where it can be pulled from. */
  readonly ref: string;
  /** The same as a folder. */
  readonly rootfs: string;
}

export async function makeStaticImage({
  stage,
  tools,
}: Pick<RowParts, 'stage' | 'tools'>): Promise<StaticImage> {
  const root = new RootFolder(join(stage.folder, 'image/root'));
  root.file('/bin/busybox', tools.file('busybox'));
  root.write('/www/index.html', PAGE);
  for (const folder of ['/proc', '/sys', '/dev', '/tmp']) root.folder(folder);
  root.settle();
  const layout = join(stage.folder, 'image/layout');
  await writeLayout(tools, layout, '1', [root], { cmd: serverArgs(8000), env: { PATH: '/bin' } });
  const registry = await startRegistry({ tools, dataDir: join(stage.folder, 'registry') });
  stage.defer(() => registry.stop());
  const ref = `${registry.host}/bench/static:1`;
  await push(tools, { layout, tag: '1', isNew: true }, ref);
  const rootfs = join(stage.folder, 'plain/rootfs');
  rmSync(rootfs, { recursive: true, force: true });
  cpSync(root.path, rootfs, { recursive: true });
  return { ref, rootfs };
}
