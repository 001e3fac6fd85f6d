// Whether a symlink stays inside the folder that is packed or unpacked. Pure: it looks at the text alone, and is
// therefore stricter than the file system: what goes up past the root and comes back is refused too.

/** `components`: the link's own path from the root; `target`: what it points to. */
export function staysInside(components: readonly string[], target: string): boolean {
  if (target.startsWith('/')) return false;
  let depth = components.length - 1;
  for (const part of target.split('/')) {
    if (part === '' || part === '.') continue;
    depth += part === '..' ? -1 : 1;
    if (depth < 0) return false;
  }
  return true;
}
