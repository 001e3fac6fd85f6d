// Picks from the machine's package sources those of the distribution itself. Third parties' sources
// are left out: nothing comes from them, and one that does not answer would fail the whole update.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One archive: where, which suites, which components, and the keyring that signs it. */
interface Source {
  readonly uris: string;
  readonly suites: readonly string[];
  readonly components: string;
  /** Further fields of the stanza, kept as they are (Signed-By, Trusted, Architectures, …). */
  readonly rest: readonly string[];
}

/** The machine's sources for the suites of its own release, as one deb822 file. */
export function debianSources(etc = '/etc/apt', codename = releaseCodename()): string {
  const sources = [...readSources(etc)].flatMap((source) => {
    const suites = source.suites.filter((suite) => isOfRelease(suite, codename));
    return suites.length === 0 ? [] : [{ ...source, suites }];
  });
  if (sources.length === 0) throw new Error(`no source for ${codename} in ${etc}`);
  return sources.map(formatSource).join('\n');
}

/** `bookworm`, `bookworm-updates`, `bookworm-security`, `stable-security`; no backports. */
function isOfRelease(suite: string, codename: string): boolean {
  const name = suite.replace(/\/updates$/, '-security');
  return ['', '-updates', '-security'].some((tail) =>
    [codename, 'stable', 'oldstable'].includes(tail === '' ? name : stripTail(name, tail)),
  );
}

const stripTail = (name: string, tail: string): string =>
  name.endsWith(tail) ? name.slice(0, -tail.length) : '';

function formatSource(source: Source): string {
  const lines = [
    'Types: deb',
    `URIs: ${source.uris}`,
    `Suites: ${source.suites.join(' ')}`,
    `Components: ${source.components}`,
    ...source.rest,
  ];
  return `${lines.join('\n')}\n`;
}

function* readSources(etc: string): Generator<Source> {
  const main = join(etc, 'sources.list');
  if (existsSync(main)) yield* parseLines(readFileSync(main, 'utf8'));
  const parts = join(etc, 'sources.list.d');
  for (const name of existsSync(parts) ? readdirSync(parts).sort() : []) {
    const text = readFileSync(join(parts, name), 'utf8');
    if (name.endsWith('.list')) yield* parseLines(text);
    if (name.endsWith('.sources')) yield* parseStanzas(text);
  }
}

/** The old format: `deb [signed-by=/k.gpg trusted=yes] http://… bookworm main contrib`. */
function* parseLines(text: string): Generator<Source> {
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
    if (match === null) continue;
    const [, options = '', uris = '', suite = '', components = ''] = match;
    const rest = options.split(/\s+/).flatMap((option) => {
      const [name = '', value = ''] = option.split('=', 2);
      const field = { 'signed-by': 'Signed-By', trusted: 'Trusted', arch: 'Architectures' }[name];
      return field === undefined ? [] : [`${field}: ${value.replaceAll(',', ' ')}`];
    });
    yield { uris, suites: [suite], components: components.trim(), rest };
  }
}

/** The deb822 format: stanzas of `Field: value`, continued on lines that start with a space. */
function* parseStanzas(text: string): Generator<Source> {
  const plain = text.replace(/^#.*\n?/gm, '');
  for (const stanza of plain.split(/\n\s*\n/)) {
    const fields = new Map<string, string>();
    for (const match of stanza.matchAll(/^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)/gm)) {
      const [, name = '', value = ''] = match;
      fields.set(name.toLowerCase(), value.replace(/^ /, ''));
    }
    const words = (name: string): string[] => (fields.get(name) ?? '').split(/\s+/).filter(Boolean);
    if (!words('types').includes('deb') || words('enabled').includes('no')) continue;
    const known = ['types', 'uris', 'suites', 'components', 'enabled'];
    const rest = [...fields].filter(([name]) => !known.includes(name));
    yield {
      uris: words('uris').join(' '),
      suites: words('suites'),
      components: words('components').join(' '),
      rest: rest.map(([name, value]) => `${name}: ${value}`),
    };
  }
}

function releaseCodename(): string {
  const text = readFileSync('/etc/os-release', 'utf8');
  return /^VERSION_CODENAME=(\S+)/m.exec(text)?.[1] ?? 'stable';
}
