// Names inside an archive are bytes, not text: a layer may hold names that are no UTF-8. A `BytePath` is a string whose
// characters are those bytes (latin1), so that it compares, splits and joins exactly; `onDisk` turns it into what the
// file system takes. Relative to the tree's root, without leading, trailing or double slashes; '' is the root.

export type BytePath = string & { readonly is: 'BytePath' };

export const ROOT = '' as BytePath;

/** A path or name of ours (UTF-8 text) as bytes. */
export function bytesOfText(text: string): BytePath {
  return Buffer.from(text, 'utf8').toString('latin1') as BytePath;
}

/** As text for people; bytes that are no UTF-8 show as U+FFFD. */
export function shownPath(path: string): string {
  const text = Buffer.from(path, 'latin1').toString('utf8');
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

/** As text, or undefined when the bytes are no UTF-8. */
export function textOfBytes(path: string): string | undefined {
  const bytes = Buffer.from(path, 'latin1');
  const text = bytes.toString('utf8');
  return Buffer.from(text, 'utf8').equals(bytes) ? text : undefined;
}

/** `root` (also bytes) and a path in it, for the file system. */
export function onDisk(root: BytePath, path: BytePath): Buffer {
  return Buffer.from(path === ROOT ? root : `${root}/${path}`, 'latin1');
}

export function joinPath(folder: BytePath, name: string): BytePath {
  return (folder === ROOT ? name : `${folder}/${name}`) as BytePath;
}

export function parentOf(path: BytePath): BytePath {
  const slash = path.lastIndexOf('/');
  return (slash < 0 ? '' : path.slice(0, slash)) as BytePath;
}

export function isBelow(path: BytePath, folder: BytePath): boolean {
  return folder === ROOT ? path !== ROOT : path.startsWith(`${folder}/`);
}
