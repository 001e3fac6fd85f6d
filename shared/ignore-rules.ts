// The rules of `.runmeshignore`, a small part of .gitignore's: one pattern a line, `#` comments, `*` and `?` inside a
// name, `**` across folders, a leading `/` for the packed folder itself, a trailing `/` for folders only. Pure.
import { Failure } from './failure.ts';
import { limits } from './limits.ts';

export type IgnoreRules = (path: string, isFolder: boolean) => boolean;

/** `.git` is never wanted. */
const ALWAYS = ['.git/', '.runmeshignore'];

/** @throws Failure INPUT_INVALID naming the line */
export function parseIgnoreRules(text: string): IgnoreRules {
  const lines = text.split(/\r?\n/);
  if (lines.length > limits.ignoreRules)
    throw new Failure('INPUT_INVALID', `.runmeshignore has more than ${limits.ignoreRules} lines`);
  const rules = [...ALWAYS, ...lines].flatMap((line, at) => {
    const pattern = line.trim();
    if (pattern === '' || pattern.startsWith('#')) return [];
    const problem = pattern.startsWith('!')
      ? 'exceptions (!) are not known'
      : /[[\]{}\\]/.test(pattern)
        ? 'only *, ? and ** are known'
        : undefined;
    if (problem !== undefined)
      throw new Failure('INPUT_INVALID', `.runmeshignore:${at - ALWAYS.length + 1}: ${problem}`);
    return [ruleOf(pattern)];
  });
  return (path, isFolder) =>
    rules.some((rule) => (isFolder || !rule.foldersOnly) && rule.pattern.test(path));
}

function ruleOf(pattern: string): { pattern: RegExp; foldersOnly: boolean } {
  const foldersOnly = pattern.endsWith('/');
  const body = pattern.replace(/\/+$/, '').replace(/^\/+/, '');
  const isAnchored = pattern.startsWith('/') || body.includes('/');
  const source = body
    .split('/')
    .map((part) => (part === '**' ? '**' : partSource(part)))
    .join('/')
    .replaceAll('**/', '(?:[^/]+/)*')
    .replaceAll('/**', '/.+')
    .replaceAll('**', '.*');
  return { pattern: new RegExp(`^${isAnchored ? '' : '(?:.*/)?'}${source}$`), foldersOnly };
}

function partSource(part: string): string {
  return part
    .replace(/[.+^$()|]/g, '\\$&')
    .replace(/\*+/g, '[^/]*')
    .replaceAll('?', '[^/]');
}
