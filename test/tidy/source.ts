// A source file as the rules see it: its tokens, its imports, its functions.

import { stripTypeScriptTypes } from 'node:module';
import { posix } from 'node:path';
import { tokenize, type Token } from './tokens.ts';

/** One `import` or `export … from`. */
export interface Import {
  readonly specifier: string;
  /** True when nothing of it is left at run time. */
  readonly isType: boolean;
  readonly isReexport: boolean;
  readonly line: number;
}

/** The extent of one function. */
export interface FunctionSpan {
  readonly line: number;
  readonly lines: number;
}

/** One file. `path` is relative to the repository, with `/`. */
export class Source {
  readonly path: string;
  readonly text: string;
  readonly comments: readonly Token[];
  /** Everything but comments. */
  readonly code: readonly Token[];
  readonly startsWithComment: boolean;
  readonly imports: readonly Import[];

  constructor(path: string, text: string) {
    this.path = path;
    this.text = text;
    const tokens = tokenize(text);
    this.comments = tokens.filter((token) => token.kind === 'comment');
    this.code = tokens.filter((token) => token.kind !== 'comment');
    this.startsWithComment =
      tokens.find((token) => !token.text.startsWith('#!'))?.kind === 'comment';
    this.imports = readImports(this.code);
  }

  /** The folder of the repository that it lies in: `agent`, `shared`, … */
  get top(): string {
    return this.path.split('/')[0] ?? '';
  }

  get folder(): string {
    return posix.dirname(this.path);
  }

  get lineCount(): number {
    return this.text.trimEnd().split('\n').length;
  }

  /** The repository path that a relative import names. */
  resolve(specifier: string): string {
    return posix.normalize(posix.join(this.folder, specifier));
  }

  /** Places where these tokens stand one after the other. */
  sequences(...texts: readonly string[]): Token[] {
    return this.code.filter((_, start) =>
      texts.every((text, offset) => isText(this.code[start + offset], text)),
    );
  }

  /** Each function with a body in braces, nested ones too. */
  functions(): FunctionSpan[] {
    // Without types, a body's brace stands right behind `)` or `=>`: return types are gone.
    const isTypeScript = /\.m?ts$/.test(this.path) && !this.path.endsWith('.d.mts');
    const plain = isTypeScript ? stripTypeScriptTypes(this.text) : this.text;
    return readFunctions(tokenize(plain).filter((token) => token.kind !== 'comment'));
  }
}

/** A string's own characters are not code: `'any'` is not `any`. */
const isText = (token: Token | undefined, text: string): boolean =>
  token?.text === text && (token.kind === 'word' || token.kind === 'punct');

function readImports(code: readonly Token[]): Import[] {
  return code.flatMap((token, at): Import[] => {
    if (token.kind !== 'word' || isText(code[at - 1], '.')) return [];
    if (token.text === 'import') return importAt(code, at);
    if (token.text === 'export') return reexportAt(code, at);
    return [];
  });
}

function importAt(code: readonly Token[], at: number): Import[] {
  const line = code[at]?.line ?? 0;
  const next = code[at + 1];
  const build = (from: Token | undefined, isType: boolean): Import[] =>
    from?.kind === 'string'
      ? [{ specifier: from.text.slice(1, -1), isType, isReexport: false, line }]
      : [];
  if (isText(next, '(')) return build(code[at + 2], false);
  if (next?.kind === 'string') return build(next, false);
  if (isText(next, '.')) return [];
  const from = code.findIndex((token, i) => i > at && isText(token, 'from'));
  return from < 0 ? [] : build(code[from + 1], isText(next, 'type'));
}

function reexportAt(code: readonly Token[], at: number): Import[] {
  const isType = isText(code[at + 1], 'type');
  const open = code[at + (isType ? 2 : 1)];
  const isList = isText(open, '{');
  if (!isList && !isText(open, '*')) return [];
  const stop = isList ? code.findIndex((token, i) => i > at && isText(token, '}')) : at;
  const from = code.findIndex((token, i) => i > stop && isText(token, 'from'));
  // `export { a };` has no `from` right behind its brace.
  if (isList && from !== stop + 1) return [];
  const name = code[from + 1];
  if (name?.kind !== 'string') return [];
  const line = code[at]?.line ?? 0;
  return [{ specifier: name.text.slice(1, -1), isType, isReexport: true, line }];
}

/** Heads whose braces hold statements, not a function. */
const BLOCKS = new Set(['if', 'for', 'while', 'switch', 'catch', 'with', 'await']);

function readFunctions(code: readonly Token[]): FunctionSpan[] {
  const spans: FunctionSpan[] = [];
  const parens: number[] = [];
  const braces: (number | undefined)[] = [];
  /** For a closing parenthesis, the index of the one that it closes. */
  const opened = new Map<number, number>();
  code.forEach((token, at) => {
    if (token.kind === 'template' && token.text.endsWith('${')) return;
    if (isText(token, '(')) parens.push(at);
    if (isText(token, ')')) opened.set(at, parens.pop() ?? at);
    if (isText(token, '{')) braces.push(bodyStart(code, at, opened));
    if (!isText(token, '}')) return;
    const line = braces.pop();
    if (line !== undefined) spans.push({ line, lines: token.line - line + 1 });
  });
  return spans;
}

/** The line where the function begins whose body this brace opens; undefined for other braces. */
function bodyStart(
  code: readonly Token[],
  brace: number,
  opened: ReadonlyMap<number, number>,
): number | undefined {
  const before = code[brace - 1];
  if (isText(before, '=>')) return before?.line;
  if (!isText(before, ')')) return undefined;
  const paren = opened.get(brace - 1) ?? brace;
  const head = code[paren - 1];
  return head?.kind === 'word' && BLOCKS.has(head.text) ? undefined : code[paren]?.line;
}
