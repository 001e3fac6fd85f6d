// The house rules, held against the repository; and the rules themselves, held against code that
// breaks each one, so that a rule that finds nothing is known to be able to find something.

import { join } from 'node:path';
import t from 'tap';
import { findings, ruleNames, type Finding } from './tidy/rules.ts';
import { Source } from './tidy/source.ts';
import { tokenize } from './tidy/tokens.ts';
import { readTree } from './tidy/tree.ts';

const show = (finding: Finding): string =>
  `${finding.file}:${finding.line} ${finding.rule}: ${finding.what}`;

t.test('the repository keeps the house rules', async (t) => {
  const tree = readTree(join(import.meta.dirname, '..'));
  t.ok(tree.sources.length > 20, 'the sources were found');
  const found = findings(tree);
  for (const rule of ruleNames) {
    const broken = found.filter((finding) => finding.rule === rule).map(show);
    t.strictSame(broken, [], rule);
  }
});

t.test('the tests keep those that hold for them too', async (t) => {
  const { tests } = readTree(join(import.meta.dirname, '..'));
  const tree = {
    sources: tests,
    readmeFolders: new Set<string>(),
    packagesFor: () => new Set<string>(),
  };
  const rules = [
    'any',
    'unfinished',
    'skipped test',
    'default export',
    'barrel',
    'cycle',
    'file name',
  ];
  const found = findings(tree).filter((finding) => rules.includes(finding.rule));
  t.strictSame(found.map(show), []);
});

/** What the rules say of files that do not exist. Lines are `line rule`, sorted. */
function judge(files: Readonly<Record<string, string>>): string[] {
  const sources = Object.entries(files).map(([path, text]) => new Source(path, text));
  const readmeFolders = new Set(['agent', 'agent/x', 'coordinator', 'shared', 'cli', 'examples/y']);
  const packagesFor = () => new Set(['ws', '@scope/kept']);
  const found = findings({ sources, readmeFolders, packagesFor });
  return found.map((finding) => `${finding.line} ${finding.rule}`).sort();
}

const lines = (count: number, line: string): string => `${line}\n`.repeat(count);

/** For each rule: code that breaks it, and code close by that does not. */
const cases: Record<string, { bad: Record<string, string>[]; good: Record<string, string>[] }> = {
  direction: {
    bad: [
      { 'agent/a.ts': `// a\nimport { x } from '../coordinator/b.ts';` },
      { 'shared/a.ts': `// a\nimport type { X } from '../agent/b.ts';` },
      { 'coordinator/a.ts': `// a\nconst x = await import('../cli/b.ts');` },
      { 'cli/a.ts': `// a\nimport '../test/b.ts';` },
      { 'examples/y/a.ts': `// a\nimport {\n  x,\n} from '../../test/b.ts';` },
    ],
    good: [
      { 'agent/a.ts': `// a\nimport { x } from '../shared/b.ts';\nimport { y } from './c.ts';` },
      { 'cli/a.ts': `// a\nimport { x } from '../agent/b.ts';` },
      { 'examples/y/a.ts': `// a\nimport { x } from '../../test/tools/tools.ts';` },
      {
        'agent/a.ts': `// a\n// import { x } from '../coordinator/b.ts';\nf('import "../cli/x.ts"');`,
      },
    ],
  },
  cycle: {
    bad: [
      {
        'agent/a.ts': `// a\nimport { b } from './x/b.ts';`,
        'agent/x/b.ts': `// b\nimport { a } from '../a.ts';`,
      },
      { 'agent/a.ts': `// a\nimport { a } from './a.ts';` },
    ],
    good: [
      {
        'agent/a.ts': `// a\nimport type { B } from './x/b.ts';`,
        'agent/x/b.ts': `// b\nimport { a } from '../a.ts';`,
      },
    ],
  },
  packages: {
    bad: [
      { 'agent/a.ts': `// a\nimport x from 'left-pad';` },
      { 'agent/a.ts': `// a\nimport fs from 'fs';` },
      { 'agent/a.ts': `// a\nimport { x } from '@scope/other/deep';` },
    ],
    good: [
      { 'agent/a.ts': `// a\nimport x from 'ws';\nimport '@scope/kept/a';\nimport 'node:fs';` },
    ],
  },
  time: {
    bad: [
      'Date.now()',
      'new Date()',
      'new Date;',
      'performance.now()',
      'process.hrtime.bigint()',
      'Math.random()',
      'AbortSignal.timeout(5)',
      'setTimeout(f, 5)',
      'setInterval(f, 5)',
      'globalThis.setTimeout(f, 5)',
      'crypto.randomUUID()',
      `import { randomBytes } from 'node:crypto';`,
      `import x from 'node:timers/promises';`,
      '`at ${Date.now()}`',
    ].map((code) => ({ 'agent/a.ts': `// a\n${code}` })),
    good: [
      { 'shared/clock.ts': '// a\nDate.now();' },
      { 'shared/chance.ts': '// a\nMath.random();' },
      { 'cli/bootstrap.mjs': '// a\nsetTimeout(f, 5);' },
      { 'examples/y/a.ts': '// a\nsetTimeout(f, Date.now());' },
      {
        'agent/a.ts':
          '// Date.now()\nnew Date(ms); socket.setTimeout(0); "Math.random()"; /Date.now/;',
      },
    ],
  },
  size: {
    bad: [
      { 'agent/a.ts': `// a\n${lines(401, 'f();')}` },
      { 'agent/a.ts': `// a\nfunction g(x: number): { y: 1 } {\n${lines(70, 'f();')}}` },
      { 'agent/a.ts': `// a\nclass A {\n  async b(): Promise<void> {\n${lines(70, 'f();')}}\n}` },
      { 'agent/a.ts': `// a\nconst g = (x: () => void) => {\n${lines(70, 'f();')}};` },
    ],
    good: [
      { 'agent/a.ts': `// a\n${lines(390, 'f();')}` },
      { 'agent/a.ts': `// a\nfunction g(): void {\n${lines(68, 'f();')}}` },
      { 'agent/a.ts': `// a\nif (x) {\n${lines(100, 'f();')}}\nconst o = {\n${lines(99, 'a,')}};` },
      { 'agent/a.ts': `// a\nfor await (const a of b) {\n${lines(100, '`${"{"}`; f(/[/{]/);')}}` },
    ],
  },
  'default export': {
    bad: [
      { 'agent/a.ts': '// a\nexport default 1;' },
      { 'agent/a.ts': '// a\nexport { a as default };' },
    ],
    good: [{ 'agent/a.ts': '// a\nswitch (a) { default: f("export default"); }' }],
  },
  barrel: {
    bad: [
      { 'agent/a.ts': `// a\nexport * from './b.ts';` },
      { 'agent/a.ts': `// a\nexport type { B } from './b.ts';` },
    ],
    good: [{ 'agent/a.ts': `// a\nexport { a };\nimport { b } from './b.ts';` }],
  },
  'file name': {
    bad: ['utils', 'GpuProbe', 'gpu_probe', 'runner-manager', 'index', 'types'].map((name) => ({
      [`agent/${name}.ts`]: '// a',
    })),
    good: [{ 'agent/gpu-probe.ts': '// a' }, { 'cli/folder-lock.d.mts': '// a' }],
  },
  readme: { bad: [{ 'agent/z/a.ts': '// a' }], good: [{ 'agent/a.ts': '// a' }] },
  'opening comment': {
    bad: [{ 'agent/a.ts': 'f();\n// a' }],
    good: [{ 'agent/a.ts': '#!/usr/bin/env node\n/* a */' }],
  },
  any: {
    bad: [
      'let a: any;',
      'f(a as any);',
      'let a: Map<string, any>;',
      'f(a as unknown as B);',
      '/* @ts-ignore */',
      '// @ts-expect-error because',
    ].map((code) => ({ 'agent/a.ts': `// a\n${code}` })),
    good: [
      { 'agent/a.ts': '// any\nAbortSignal.any([a]); Promise.any(b); f("any", a as unknown);' },
    ],
  },
  unfinished: {
    bad: [
      { 'agent/a.ts': `// a\n// ${'TO'}DO: later` },
      { 'agent/a.ts': `// a\n/* ${'FIX'}ME */` },
    ],
    good: [{ 'agent/a.ts': `// a\nf('XXXX', 'TO${'DO'}');` }],
  },
  'skipped test': {
    bad: ['skip', 'only', 'todo'].map((name) => ({
      'test/a.test.ts': `// a\nt.test.${name}('x');`,
    })),
    good: [{ 'test/a.test.ts': `// a\nt.test('x', { skip: reason }, f); t.skipped();` }],
  },
};

t.test('each rule finds what breaks it, and nothing else', async (t) => {
  t.strictSame(Object.keys(cases).sort(), [...ruleNames].sort(), 'each rule has its cases');
  for (const [rule, { bad, good }] of Object.entries(cases)) {
    for (const files of bad) {
      const found = judge(files).map((line) => line.replace(/^\d+ /, ''));
      t.ok(found.includes(rule), `${rule}: ${JSON.stringify(files).slice(0, 90)}`);
    }
    for (const files of good) {
      const found = judge(files).filter((line) => line.endsWith(` ${rule}`));
      t.strictSame(found, [], `not ${rule}: ${JSON.stringify(files).slice(0, 90)}`);
    }
  }
});

t.test('findings carry the line', async (t) => {
  t.strictSame(judge({ 'agent/a.ts': '// a\n/* b\n*/\n`\n${Date.now()}\n`;\nlet a: any;' }), [
    '5 time',
    '7 any',
  ]);
});

t.test('tokens: comments, strings, templates and regular expressions', async (t) => {
  const kinds = (text: string): string =>
    tokenize(text)
      .map(({ kind, text }) => `${kind[0]}${text}`)
      .join(' ');
  t.equal(kinds('a / b / c'), 'wa p/ wb p/ wc');
  t.equal(kinds('a = /[/"]/g;'), 'wa p= r/[/"]/g p;');
  t.equal(kinds('return /x/'), 'wreturn r/x/');
  t.equal(kinds('`a${b + `${{ c }}`}d`'), 't`a${ wb p+ t`${ p{ wc p} t}` t}d`');
  t.equal(kinds(`'it\\'s' // "x"`), `s'it\\'s' c// "x"`);
  t.equal(kinds('1_000n .5 0xff x.y'), 'n1_000n n.5 n0xff wx p. wy');
  t.equal(kinds('a?.b ? .5 : c'), 'wa p?. wb p? n.5 p: wc');
});
