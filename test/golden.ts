// Contracts as text: what later work and other programs hang on is written down in test/golden and compared. A change on
// purpose is made with UPDATE_GOLDEN=1 and reviewed as a diff.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';

export async function golden(t: Test, name: string, text: string): Promise<void> {
  const path = join(import.meta.dirname, 'golden', name);
  if (process.env['UPDATE_GOLDEN'] === '1') await writeFile(path, text);
  t.equal(text, await readFile(path, 'utf8'), `golden ${name}; UPDATE_GOLDEN=1 writes it anew`);
}
