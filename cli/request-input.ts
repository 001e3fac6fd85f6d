// The body of `runmesh run`: JSON from the command line, a file or stdin, with files put in as data URIs. It is checked
// here, so that a typing mistake is told with its place instead of being queued.
import { readFile, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { limits } from '../shared/limits.ts';
import { CommandFailure } from './command-failure.ts';
import { sizeText } from './quantity.ts';

export interface InputOptions {
  /** JSON text, `@path`, or `-` for stdin; absent: `{}`. */
  input?: string | undefined;
  /** `field=path` each. */
  files: readonly string[];
}

/** @throws CommandFailure data, missing, usage */
export async function readInput(
  options: InputOptions,
  readStdin: () => Promise<string>,
): Promise<string> {
  const { text, name } = await textOf(options.input, readStdin);
  const value = parse(text, name);
  if (options.files.length === 0) return text;
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new CommandFailure('usage', '--file: the input must be a JSON object to put a file into');
  const filled: Record<string, unknown> = { ...value };
  for (const pair of options.files) {
    const at = pair.indexOf('=');
    if (at <= 0 || at === pair.length - 1)
      throw new CommandFailure('usage', `--file: ${pair} is not field=path`, {
        next: 'Write it like --file image_url=photo.png.',
      });
    filled[pair.slice(0, at)] = await dataUri(pair.slice(at + 1));
  }
  return JSON.stringify(filled);
}

async function textOf(
  input: string | undefined,
  readStdin: () => Promise<string>,
): Promise<{ text: string; name: string }> {
  if (input === undefined) return { text: '{}', name: '--input' };
  if (input === '-') return { text: await readStdin(), name: 'stdin' };
  if (!input.startsWith('@')) return { text: input, name: '--input' };
  const path = input.slice(1);
  return { text: await readText(path), name: path };
}

async function readText(path: string): Promise<string> {
  await checkSize(path, limits.inputBytes);
  return readFile(path, 'utf8');
}

async function checkSize(path: string, maxBytes: number): Promise<void> {
  const { size } = await stat(path);
  if (size > maxBytes)
    throw new CommandFailure(
      'data',
      `${path} has ${sizeText(size)}; an input may have ${sizeText(maxBytes)}`,
      { code: 'INPUT_TOO_LARGE' },
    );
}

function parse(text: string, name: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CommandFailure('data', `${name}: not JSON: ${reason}`, {
      code: 'INPUT_INVALID',
      next: `Quote it for the shell, like --input '{"name":"you"}', or use --input @file.json.`,
    });
  }
}

const MIME: Record<string, string> = {
  '.avif': 'image/avif',
  '.flac': 'audio/flac',
  '.gif': 'image/gif',
  '.jpeg': 'image/jpeg',
  '.jpg': 'image/jpeg',
  '.json': 'application/json',
  '.mp3': 'audio/mpeg',
  '.mp4': 'video/mp4',
  '.ogg': 'audio/ogg',
  '.pdf': 'application/pdf',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain',
  '.wav': 'audio/wav',
  '.webm': 'video/webm',
  '.webp': 'image/webp',
};

async function dataUri(path: string): Promise<string> {
  // Base64 makes four bytes of three.
  await checkSize(path, Math.floor((limits.inputBytes / 4) * 3));
  const bytes = await readFile(path);
  const mime = MIME[extname(path).toLowerCase()] ?? 'application/octet-stream';
  return `data:${mime};base64,${bytes.toString('base64')}`;
}
