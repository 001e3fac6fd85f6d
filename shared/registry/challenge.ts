// Reads `WWW-Authenticate` (RFC 9110 §11.6.1): several challenges in one value, quoted strings with commas and escapes.
// Pure. What does not parse ends the reading; the challenges before it count.

export interface Challenge {
  /** In lower case: `bearer`, `basic`. */
  scheme: string;
  /** Names in lower case. */
  params: ReadonlyMap<string, string>;
}

const TOKEN = /[A-Za-z0-9!#$%&'*+\-.^_`|~]+/y;
const TOKEN68 = /[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))/y;
const SPACE = /[ \t]*/y;
const COMMAS = /[ \t,]*/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;

/** The challenges, in the order given. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(header);
    if (!match) return undefined;
    at = pattern.lastIndex;
    return match[1] ?? match[0];
  };
  /** `name = value` at `at`, or nothing and `at` unmoved. */
  const takeParam = (): [string, string] | undefined => {
    const start = at;
    const name = take(TOKEN);
    take(SPACE);
    if (name === undefined || header[at] !== '=') {
      at = start;
      return undefined;
    }
    at += 1;
    take(SPACE);
    const quoted = take(QUOTED);
    const value = quoted?.replace(/\\(.)/g, '$1') ?? take(TOKEN);
    if (value === undefined) {
      at = start;
      return undefined;
    }
    return [name.toLowerCase(), value];
  };

  take(COMMAS);
  while (at < header.length) {
    const scheme = take(TOKEN)?.toLowerCase();
    const space = take(SPACE);
    // A parameter that could not be read is no scheme.
    if (scheme === undefined || header[at] === '=') break;
    const params = new Map<string, string>();
    if (space !== '' && !takesParamNext(header, at)) take(TOKEN68);
    for (;;) {
      take(COMMAS);
      const param = takeParam();
      if (!param) break;
      if (!params.has(param[0])) params.set(param[0], param[1]);
    }
    challenges.push({ scheme, params });
  }
  return challenges;
}

/** Whether `name=value` comes next, rather than a token68 or another scheme. */
function takesParamNext(header: string, at: number): boolean {
  return /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+[ \t]*=[ \t]*(?:"|[A-Za-z0-9!#$%&'*+\-.^_`|~])/.test(
    header.slice(at, at + 4096),
  );
}
