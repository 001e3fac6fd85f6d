// The house rules that a program can check, one table. CONTRIBUTING.md says what they are for.

import { builtinModules } from 'node:module';
import { cycles } from './cycles.ts';
import type { Source } from './source.ts';

/** Something that breaks a rule. */
export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly rule: string;
  readonly what: string;
}

/** What the rules look at: every source file, and what else they must know of the repository. */
export interface Tree {
  readonly sources: readonly Source[];
  readonly readmeFolders: ReadonlySet<string>;
  /** The packages that a file may import at run time, by its folder's nearest package.json. */
  readonly packagesFor: (path: string) => ReadonlySet<string>;
}

const LINES_PER_FILE = 400;
const LINES_PER_FUNCTION = 70;

const PRODUCT = ['agent', 'coordinator', 'shared', 'cli'];

/** Who may import whom. Examples are programs that people copy: they stand on their own. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  shared: ['shared'],
  agent: ['agent', 'shared'],
  coordinator: ['coordinator', 'shared'],
  cli: ['cli', 'agent', 'coordinator', 'shared'],
  // The demo fetches the same Debian programs as the tests.
  examples: ['examples', 'test/tools'],
  systemd: [],
};

const BANNED_WORDS_IN_NAMES = new Set(
  'util utils helper helpers common lib manager service services type types index misc'.split(' '),
);

/** Time and chance, each as the tokens that reach for it. */
const TIME_AND_CHANCE: readonly (readonly string[])[] = [
  ['Date', '.', 'now'],
  ['new', 'Date', '(', ')'],
  ['new', 'Date', ';'],
  ['performance', '.', 'now'],
  ['process', '.', 'hrtime'],
  ['Math', '.', 'random'],
  ['AbortSignal', '.', 'timeout'],
];
/** The same, for names that are functions of their own or of `crypto` and the global object. */
const CHANCE_NAMES =
  'setTimeout setInterval hrtime randomUUID randomBytes randomInt randomFill randomFillSync getRandomValues'.split(
    ' ',
  );
const CLOCK_AND_CHANCE = ['shared/clock.ts', 'shared/chance.ts'];

const isProduct = (source: Source): boolean => PRODUCT.includes(source.top);
const isTest = (source: Source): boolean => source.top === 'test';
/** Runs on Node 20 before anything is installed, so it cannot be handed a Clock. */
const isBootstrap = (source: Source): boolean => /^cli\/[^/]+\.mjs$/.test(source.path);

type Report = (line: number, what: string) => void;
type Rule = (source: Source, report: Report, tree: Tree) => void;

/** Rules that look at one file at a time. */
const fileRules: Readonly<Record<string, Rule>> = {
  direction(source, report) {
    const allowed = MAY_IMPORT[source.top];
    if (allowed === undefined) return;
    for (const { specifier, line } of source.imports.filter((i) => i.specifier.startsWith('.'))) {
      const target = source.resolve(specifier);
      if (!allowed.some((top) => target.startsWith(`${top}/`))) {
        report(line, `${source.top} must not import ${target}`);
      }
    }
  },

  packages(source, report, tree) {
    if (isTest(source)) return;
    for (const { specifier, line } of source.imports) {
      if (specifier.startsWith('.') || specifier.startsWith('node:')) continue;
      const parts = specifier.split('/');
      const name = parts.slice(0, specifier.startsWith('@') ? 2 : 1).join('/');
      if (builtinModules.includes(name)) report(line, `write node:${specifier}`);
      else if (!tree.packagesFor(source.path).has(name)) {
        report(line, `${name} is not in the dependencies of its package.json`);
      }
    }
  },

  time(source, report) {
    if (!isProduct(source) || isBootstrap(source) || CLOCK_AND_CHANCE.includes(source.path)) return;
    for (const tokens of TIME_AND_CHANCE) {
      for (const { line } of source.sequences(...tokens)) {
        report(line, `${tokens.join('')}: take a Clock or a Chance`);
      }
    }
    for (const name of CHANCE_NAMES) {
      for (const line of freeUses(source, name)) report(line, `${name}: take a Clock or a Chance`);
    }
    for (const { specifier, line } of source.imports) {
      if (/^node:timers/.test(specifier)) report(line, `${specifier}: take a Clock`);
    }
  },

  size(source, report) {
    if (isTest(source)) return;
    const { lineCount } = source;
    if (lineCount > LINES_PER_FILE) report(LINES_PER_FILE, `${lineCount} lines`);
    for (const { line, lines } of source.functions()) {
      if (lines > LINES_PER_FUNCTION) report(line, `a function of ${lines} lines`);
    }
  },

  'default export'(source, report) {
    const found = [...source.sequences('export', 'default'), ...source.sequences('as', 'default')];
    for (const { line } of found) report(line, 'export it by its name');
  },

  barrel(source, report) {
    for (const { line, isReexport, specifier } of source.imports) {
      if (isReexport) report(line, `who needs ${specifier} imports it`);
    }
  },

  'file name'(source, report) {
    const name = source.path.split('/').at(-1) ?? '';
    if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.d|\.test)?\.(ts|mts|mjs|js)$/.test(name)) {
      report(1, `${name} is not kebab-case`);
    }
    const words = source.path.split('/').flatMap((part) => part.split(/[-.]/));
    const banned = words.filter((word) => BANNED_WORDS_IN_NAMES.has(word));
    for (const word of banned) report(1, `"${word}" says nothing about what is inside`);
  },

  readme(source, report, tree) {
    const isFirst = tree.sources.find((other) => other.folder === source.folder) === source;
    if (isFirst && !tree.readmeFolders.has(source.folder)) report(1, 'its folder has no README.md');
  },

  'opening comment'(source, report) {
    if (!source.startsWithComment) report(1, 'say first what this file is, and why');
  },

  any(source, report) {
    source.code.forEach((token, at) => {
      const [before, after] = [source.code[at - 1]?.text, source.code[at + 1]?.text];
      const isMember = before === '.' || before === '?.' || after === ':' || after === '(';
      if (token.kind === 'word' && token.text === 'any' && !isMember) report(token.line, 'any');
    });
    for (const { line } of source.sequences('as', 'unknown', 'as')) report(line, 'as unknown as');
    for (const { text, line } of source.comments) {
      const pragma = /@ts-(?:ignore|expect-error|nocheck)/.exec(text);
      if (pragma !== null) report(line, pragma[0]);
    }
  },

  unfinished(source, report) {
    for (const { text, line } of source.comments) {
      const word = /\b(?:TODO|FIXME|XXX)\b/.exec(text);
      if (word !== null) report(line, `${word[0]}: do it, or write an issue`);
    }
  },

  'skipped test'(source, report) {
    if (!isTest(source)) return;
    for (const name of ['skip', 'only', 'todo']) {
      for (const { line } of source.sequences('.', name, '(')) {
        report(line, `.${name}(: give tap a reason found at run time`);
      }
    }
  },
};

/** Uses of a name as itself, as `crypto.name` or `globalThis.name`; not as another's method. */
function freeUses(source: Source, name: string): number[] {
  return source.code.flatMap((token, at) => {
    if (token.kind !== 'word' || token.text !== name) return [];
    const isMember = ['.', '?.'].includes(source.code[at - 1]?.text ?? '');
    const owner = source.code[at - 2]?.text ?? '';
    return isMember && !/^(?:(?:node|web)?crypto|globalThis)$/i.test(owner) ? [] : [token.line];
  });
}

/** The names of all rules. */
export const ruleNames: readonly string[] = [...Object.keys(fileRules), 'cycle'];

/** Everything in the tree that breaks a rule. */
export function findings(tree: Tree): Finding[] {
  const found: Finding[] = [];
  for (const source of tree.sources) {
    for (const [rule, check] of Object.entries(fileRules)) {
      check(source, (line, what) => found.push({ file: source.path, line, rule, what }), tree);
    }
  }
  for (const cycle of cycles(valueImports(tree.sources))) {
    found.push({ file: cycle[0] ?? '', line: 1, rule: 'cycle', what: cycle.join(' > ') });
  }
  return found;
}

/** Who imports whom at run time. */
function valueImports(sources: readonly Source[]): Map<string, string[]> {
  return new Map(
    sources.map((source) => [
      source.path,
      source.imports
        .filter((one) => !one.isType && one.specifier.startsWith('.'))
        .map((one) => source.resolve(one.specifier)),
    ]),
  );
}
