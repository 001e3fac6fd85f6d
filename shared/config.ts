// Configuration of one program, from one table: file < environment < flag. Whoever types a key wrong is told so with the
// line, because a setting that is silently ignored is worse than a program that does not start.
//
//   keys     camelCase in code, snake_case in the YAML file, RUNMESH_SNAKE_CASE in the environment, --kebab-case as flag
//   values   a higher source replaces the whole value of a lower one; lists and maps are not merged
//   G1       an unknown key of the file or a flag is refused; unknown RUNMESH_ variables are not (other programs of
//            ours read some of them)
//   G2       a secret never appears in a message or in `describeConfig`
import { readFile } from 'node:fs/promises';
import { isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { Failure } from './failure.ts';

export interface ConfigRow {
  /** Checks a value and fills in the default; an optional key has a schema that takes undefined. */
  schema: z.ZodType;
  /** One sentence for `--help` and the documents. */
  doc: string;
  secret?: boolean;
  /** A text of the environment or of a flag as the schema wants it; absent: the text itself. */
  fromText?: (text: string) => unknown;
}

export type ConfigTable = Readonly<Record<string, ConfigRow>>;
export type ConfigOf<T extends ConfigTable> = { readonly [K in keyof T]: z.output<T[K]['schema']> };

export interface ConfigSources<T extends ConfigTable> {
  table: T;
  /** Path of a YAML file; absent: none is read. */
  file?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  /** By camelCase key; undefined values count as not given. */
  flags: Readonly<Record<string, unknown>>;
}

/** A value with the place that it came from, for messages. */
interface Given {
  value: unknown;
  from: string;
  line?: number;
}

/** @throws Failure CONFIG_INVALID with `key`, and `line` where the file is to blame */
export async function loadConfig<T extends ConfigTable>(
  sources: ConfigSources<T>,
): Promise<ConfigOf<T>> {
  const { table, env, flags } = sources;
  const given = new Map<string, Given>();
  if (sources.file !== undefined) await readConfigFile(sources.file, table, given);
  for (const [key, row] of Object.entries(table)) {
    const name = `RUNMESH_${snakeOf(key).toUpperCase()}`;
    const text = env[name];
    if (text !== undefined && text !== '')
      given.set(key, { value: row.fromText ? row.fromText(text) : text, from: name });
  }
  for (const [key, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const from = `--${snakeOf(key).replaceAll('_', '-')}`;
    const row = Object.hasOwn(table, key) ? table[key] : undefined;
    if (!row) throw new Failure('CONFIG_INVALID', `${from}: unknown flag`, { detail: { key } });
    const read = typeof value === 'string' && row.fromText ? row.fromText(value) : value;
    given.set(key, { value: read, from });
  }
  const values: Record<string, unknown> = {};
  for (const [key, row] of Object.entries(table)) values[key] = check(key, row, given.get(key));
  // Every key of the table was checked by its own schema.
  return Object.freeze(values) as ConfigOf<T>;
}

/** The settings in force, one `key: value` a line, secrets redacted (G2). */
export function describeConfig<T extends ConfigTable>(table: T, config: ConfigOf<T>): string {
  const lines = Object.entries(table).flatMap(([key, row]) => {
    const value: unknown = config[key];
    if (value === undefined) return [];
    return `${snakeOf(key)}: ${row.secret ? '(redacted)' : JSON.stringify(value)}`;
  });
  return lines.join('\n');
}

function check(key: string, row: ConfigRow, given: Given | undefined): unknown {
  const result = row.schema.safeParse(given?.value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const inside = issue?.path.length ? ` (${issue.path.join('.')})` : '';
  const from = given?.from ?? snakeOf(key);
  const reason = given ? (issue?.message ?? 'is malformed') : `is required: ${row.doc}`;
  throw new Failure(
    'CONFIG_INVALID',
    `${from}${inside}: ${row.secret && given ? 'is malformed' : reason}`,
    {
      detail: { key, ...(given?.line === undefined ? {} : { line: given.line }) },
    },
  );
}

async function readConfigFile(
  path: string,
  table: ConfigTable,
  given: Map<string, Given>,
): Promise<void> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new Failure('CONFIG_INVALID', `${path}: cannot be read`, { cause });
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [error] = document.errors;
  if (error) {
    const { line, col } = lines.linePos(error.pos[0]);
    const reason = error.message.split('\n')[0]?.replace(/ at line .*$/, '') ?? 'is not YAML';
    throw new Failure('CONFIG_INVALID', `${path}:${line}:${col}: ${reason}`, {
      cause: error,
      detail: { line },
    });
  }
  if (document.contents === null) return;
  if (!isMap(document.contents))
    throw new Failure('CONFIG_INVALID', `${path}: expected a map of keys`, { detail: { line: 1 } });
  const keys = new Map(Object.keys(table).map((key) => [snakeOf(key), key]));
  for (const { key: node, value } of document.contents.items) {
    const name = isScalar(node) ? String(node.value) : '?';
    const offset = isScalar(node) ? (node.range?.[0] ?? 0) : 0;
    const { line } = lines.linePos(offset);
    const key = keys.get(name);
    if (key === undefined)
      throw new Failure(
        'CONFIG_INVALID',
        `${path}:${line}: unknown key ${name}; there are ${[...keys.keys()].join(', ')}`,
        { detail: { key: name, line } },
      );
    given.set(key, { value: plain(value), from: `${path}:${line}: ${name}`, line });
  }
}

/** A YAML node as a plain value; an empty value counts as not given. */
function plain(node: unknown): unknown {
  const value: unknown =
    typeof node === 'object' &&
    node !== null &&
    'toJSON' in node &&
    typeof node.toJSON === 'function'
      ? node.toJSON()
      : node;
  return value ?? undefined;
}

function snakeOf(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
