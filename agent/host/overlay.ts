// Mounts an overlay of many layers. mount(2) takes one page of options, so long lists (and names that the option
// syntax cannot carry) are given as short links relative to a folder made for the moment of the call: the kernel
// resolves them once, and the links may go right after.
import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { OverlayMount } from './host.ts';

/** One page, less room for what mount adds by itself. */
const OPTIONS_BYTES = 4096 - 512;

/** The option string when the paths can be written as they are, otherwise undefined. */
export function plainOptions(mount: OverlayMount): string | undefined {
  const paths = [...mount.lower, mount.upper, mount.work];
  if (paths.some((path) => /[:,\\"\s]/.test(path))) return undefined;
  const text = overlayOptions(mount.lower, mount.upper, mount.work);
  return Buffer.byteLength(text) <= OPTIONS_BYTES ? text : undefined;
}

function overlayOptions(lower: readonly string[], upper: string, work: string): string {
  return `lowerdir=${lower.join(':')},upperdir=${upper},workdir=${work}`;
}

/** Calls `mountProgram(args, cwd)` once, with arguments that fit. */
export async function mountOverlayWith(
  mount: OverlayMount,
  mountProgram: (args: readonly string[], cwd: string) => Promise<unknown>,
): Promise<void> {
  const args = (text: string): string[] => ['-t', 'overlay', 'overlay', '-o', text, mount.target];
  const plain = plainOptions(mount);
  if (plain !== undefined) {
    await mountProgram(args(plain), '/');
    return;
  }
  const links = await mkdtemp(join(dirname(mount.work), '.l'));
  try {
    const names = mount.lower.map((_, index) => index.toString(36));
    await Promise.all(
      mount.lower.map((path, index) => symlink(path, join(links, names[index] ?? ''))),
    );
    await symlink(mount.upper, join(links, '.u'));
    await symlink(mount.work, join(links, '.w'));
    await mountProgram(args(overlayOptions(names, '.u', '.w')), links);
  } finally {
    await rm(links, { recursive: true, force: true });
  }
}
