// Extended attributes in the text form that `setfattr --restore` reads: one child for a whole layer.
import type { PathAttributes } from './host.ts';

/** `--restore` text; paths relative to `/`, because setfattr takes them as they stand. */
export function attributeText(paths: readonly PathAttributes[]): string {
  return paths
    .map(({ path, attributes }) => {
      const lines = [...attributes].map(([name, value]) => `${quoted(name)}=${encoded(value)}\n`);
      return `# file: ${quoted(path)}\n${lines.join('')}\n`;
    })
    .join('');
}

function encoded(value: Uint8Array): string {
  return `0s${Buffer.from(value).toString('base64')}`;
}

/** As getfattr quotes: backslash and control bytes in octal, so that no name can end its line. */
function quoted(text: string): string {
  let out = '';
  for (const byte of Buffer.from(text)) {
    const plain = byte > 0x20 && byte < 0x7f && byte !== 0x5c && byte !== 0x3d;
    out += plain ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`;
  }
  return out;
}
