// Cuts TypeScript into tokens: just enough of the language that a rule about code is never fooled by
// a comment, a string, a template or a regular expression. It does not parse.

/** What a token is. Templates come as their text pieces, with the tokens of `${…}` in between. */
export type TokenKind = 'word' | 'number' | 'string' | 'template' | 'regex' | 'punct' | 'comment';

/** One token with its place. */
export interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  /** Counted from 1. */
  readonly line: number;
}

/** After these words a slash begins a regular expression; after others it divides. */
const BEFORE_REGEX = new Set(
  'return typeof case in of delete void throw new else do instanceof await yield'.split(' '),
);

const PATTERNS: readonly (readonly [TokenKind, RegExp])[] = [
  ['comment', /\/\/[^\n]*|\/\*[^]*?\*\/|^#![^\n]*/y],
  ['string', /'(?:\\[^]|[^'\\\n])*'|"(?:\\[^]|[^"\\\n])*"/y],
  ['number', /(?:0[xob][\da-f_]+|\d[\d_]*(?:\.[\d_]*)?(?:e[+-]?\d+)?|\.\d[\d_]*)n?/iy],
  ['word', /[#@]?[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/uy],
];
const REGEX = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y;
const TEMPLATE = /(?:\\[^]|\$(?!\{)|[^`\\$])*(?:`|\$\{)/y;
const PUNCT = /=>|\?\.(?!\d)|\.\.\.|[^\s]/uy;

/** All tokens of a file, comments included. */
export function tokenize(text: string): Token[] {
  return new Tokenizer(text).run();
}

class Tokenizer {
  readonly #text: string;
  readonly #tokens: Token[] = [];
  /** For each template we are inside of: how many braces are open in its current `${…}`. */
  readonly #templates: number[] = [];
  #at = 0;
  #line = 1;

  constructor(text: string) {
    this.#text = text;
  }

  run(): Token[] {
    for (this.#skipSpace(); this.#at < this.#text.length; this.#skipSpace()) {
      if (!this.#plain() && !this.#regex()) this.#punct();
    }
    return this.#tokens;
  }

  #skipSpace(): void {
    for (; /\s/.test(this.#text[this.#at] ?? ''); this.#at++) {
      if (this.#text[this.#at] === '\n') this.#line++;
    }
  }

  #plain(): boolean {
    return PATTERNS.some(([kind, pattern]) => this.#take(kind, pattern));
  }

  #regex(): boolean {
    if (this.#text[this.#at] !== '/') return false;
    const before = this.#tokens.findLast((token) => token.kind !== 'comment');
    const divides =
      before !== undefined &&
      (before.kind === 'punct'
        ? [')', ']', '}'].includes(before.text)
        : before.kind !== 'word' || !BEFORE_REGEX.has(before.text));
    return !divides && this.#take('regex', REGEX);
  }

  #punct(): void {
    const open = this.#templates.length - 1;
    const depth = this.#templates[open];
    const mark = this.#text[this.#at];
    if (mark === '}' && depth === 0) {
      this.#templates.pop();
      this.#template();
    } else if (mark === '`') {
      this.#template();
    } else {
      if (depth !== undefined && mark === '{') this.#templates[open] = depth + 1;
      if (depth !== undefined && mark === '}') this.#templates[open] = depth - 1;
      if (!this.#take('punct', PUNCT)) this.#at++;
    }
  }

  /** Reads a template's text from its backtick, or from the brace that ends a `${…}`. */
  #template(): void {
    const from = this.#at;
    this.#at += 1;
    if (!this.#take('template', TEMPLATE, from)) this.#at = this.#text.length;
    else if (this.#text[this.#at - 1] === '{') this.#templates.push(0);
  }

  #take(kind: TokenKind, pattern: RegExp, from = this.#at): boolean {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.#text)) return false;
    const text = this.#text.slice(from, pattern.lastIndex);
    this.#tokens.push({ kind, text, line: this.#line });
    for (const character of text) if (character === '\n') this.#line++;
    this.#at = pattern.lastIndex;
    return true;
  }
}
