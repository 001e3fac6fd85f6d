// Reads an app file: YAML text to a checked AppSpec. What is wrong is named with field, line and column, all of it at
// once, so that one look at the file mends it.
import { LineCounter, parseDocument, type Document } from 'yaml';
import { appSpec, type AppSpec } from './app-spec.ts';
import { Failure } from './failure.ts';
import { limits } from './limits.ts';

export interface AppFileProblem {
  line: number;
  column: number;
  field: string;
  problem: string;
}

/**
 * @param name how messages call the file
 * @throws Failure INPUT_INVALID whose message has one `file:line:column: field: problem` line each; INPUT_TOO_LARGE
 */
export function parseAppFile(text: string, name: string): AppSpec {
  if (text.length > limits.appFileBytes)
    throw new Failure(
      'INPUT_TOO_LARGE',
      `${name}: an app file may have ${limits.appFileBytes} bytes`,
    );
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
  });
  const at = (offset: number): { line: number; column: number } => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const problems: AppFileProblem[] = document.errors.map((error) => ({
    ...at(error.pos[0]),
    field: 'yaml',
    problem: error.message,
  }));
  if (problems.length > 0) throw refusal(name, problems);
  const result = appSpec.safeParse(plainOf(document, name) ?? {});
  if (result.success) return result.data;
  for (const issue of result.error.issues) {
    const unknown = issue.code === 'unrecognized_keys' ? issue.keys : [undefined];
    for (const key of unknown) {
      const path = key === undefined ? issue.path : [...issue.path, key];
      problems.push({
        ...at(offsetOf(document, path)),
        field: fieldOf(path),
        problem: key === undefined ? issue.message : 'is not a field of an app file',
      });
    }
  }
  throw refusal(name, problems);
}

/** The document as plain data; aliases that multiply beyond reason are refused. */
function plainOf(document: Document, name: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : 'cannot be read';
    throw refusal(name, [{ line: 1, column: 1, field: 'yaml', problem }]);
  }
}

/** `scaling.max_concurrency`, `weights[1].to`; `(file)` for the whole. */
export function fieldOf(path: readonly PropertyKey[]): string {
  const text = path
    .map((part) => (/^\d+$/.test(String(part)) ? `[${String(part)}]` : `.${String(part)}`))
    .join('')
    .replace(/^\./, '');
  return text || '(file)';
}

function refusal(name: string, problems: AppFileProblem[]): Failure {
  const text = problems
    .map(({ line, column, field, problem }) => `${name}:${line}:${column}: ${field}: ${problem}`)
    .join('\n');
  const first = problems[0];
  return new Failure('INPUT_INVALID', text, {
    detail: first ? { field: first.field, line: first.line, column: first.column } : {},
  });
}

/** Where a value stands in the text; a field that is not there is where its nearest parent begins. */
function offsetOf(document: Document, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length -= 1) {
    const part = path
      .slice(0, length)
      .map((key) => (/^\d+$/.test(String(key)) ? Number(key) : String(key)));
    const parent: unknown =
      length > 1 ? document.getIn(part.slice(0, -1), true) : document.contents;
    const keyed = keyOffset(parent, part.at(-1));
    if (keyed !== undefined) return keyed;
    const node: unknown = document.getIn(part, true);
    if (hasRange(node)) return node.range[0];
  }
  return 0;
}

function hasRange(node: unknown): node is { range: [number, number, number] } {
  return typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range);
}

function keyOffset(parent: unknown, key: string | number | undefined): number | undefined {
  if (typeof parent !== 'object' || parent === null || !('items' in parent)) return undefined;
  if (!Array.isArray(parent.items)) return undefined;
  for (const item of parent.items as unknown[]) {
    if (typeof item !== 'object' || item === null || !('key' in item)) continue;
    const itemKey = item.key;
    if (hasRange(itemKey) && 'value' in itemKey && itemKey.value === key) return itemKey.range[0];
  }
  return undefined;
}
