// Prints what an app answered: its body on stdout and nothing else, so that it can be piped; what went wrong on stderr.
// With --json one object on stdout, whatever happened.
import { writeFile } from 'node:fs/promises';
import { AlreadyTold, CommandFailure, failureText } from './command-failure.ts';
import { record, stringOf, type HttpResponse } from './http.ts';
import { sizeText } from './quantity.ts';
import { outJson, type Shell } from './shell.ts';
import { withoutControls } from './terminal.ts';

export interface ResultOptions {
  json?: boolean | undefined;
  /** Write the body to this file instead of stdout. */
  output?: string | undefined;
  /** What --json adds. */
  facts: Record<string, unknown>;
  /** How to find out more when it failed. */
  next: string;
}

/** @throws AlreadyTold failed when the app or the platform answered with an error */
export async function showResult(
  shell: Shell,
  response: HttpResponse,
  options: ResultOptions,
): Promise<void> {
  const ok = response.status >= 200 && response.status < 300;
  if (ok && !options.json && options.output === undefined && !shell.terminal.tty)
    return pipe(shell, response);
  const bytes = Buffer.from(await response.arrayBuffer());
  const type = response.headers.get('content-type') ?? '';
  const body = bodyOf(bytes, type);
  if (options.output !== undefined && ok) await writeFile(options.output, bytes);
  if (options.json) {
    const served = response.headers.get('x-fal-served-from') ?? undefined;
    outJson(shell, {
      ...options.facts,
      ok,
      status: response.status,
      content_type: type,
      runner: served,
      error_type: response.headers.get('x-fal-error-type') ?? undefined,
      ...('json' in body
        ? { output: body.json }
        : 'text' in body
          ? { output: body.text }
          : { output_base64: bytes.toString('base64') }),
    });
  } else if (ok && options.output === undefined) {
    printBody(shell, body, bytes, type);
  }
  if (ok) return;
  if (!options.json) shell.terminal.error(failureText(failureOf(response, body, options.next)));
  throw new AlreadyTold('failed');
}

type BodyText = { json: unknown; text: string } | { text: string } | { binary: true };

function bodyOf(bytes: Buffer, type: string): BodyText {
  if (/\bjson\b/.test(type)) {
    const text = bytes.toString('utf8');
    try {
      return { json: JSON.parse(text) as unknown, text };
    } catch {
      return { text };
    }
  }
  if (/^text\/|\bxml\b/.test(type)) return { text: bytes.toString('utf8') };
  return bytes.byteLength === 0 ? { text: '' } : { binary: true };
}

/** For a person: JSON laid out, nothing that steers the terminal, no raw bytes. */
function printBody(shell: Shell, body: BodyText, bytes: Buffer, type: string): void {
  if ('json' in body) shell.terminal.out(`${JSON.stringify(body.json, null, 2)}\n`);
  else if ('text' in body)
    shell.terminal.out(`${withoutControls(body.text).replace(/\n?$/, '\n')}`);
  else
    throw new CommandFailure(
      'usage',
      `the result is ${sizeText(bytes.byteLength)} of ${type || 'unknown type'}: not for a terminal`,
      { next: 'Send it to a file with -o FILE, or pipe it.' },
    );
}

/** Byte for byte as the app sent it, as it arrives. */
async function pipe(shell: Shell, response: HttpResponse): Promise<void> {
  let last = 10;
  for await (const chunk of response.body ?? []) {
    last = chunk.at(-1) ?? last;
    await shell.terminal.outBytes(chunk);
  }
  // A JSON result without its newline glues to the next prompt or line of a script.
  if (last !== 10 && /json|^text\//.test(response.headers.get('content-type') ?? ''))
    shell.terminal.out('\n');
}

function failureOf(response: HttpResponse, body: BodyText, next: string): CommandFailure {
  const fields = 'json' in body ? record(body.json) : undefined;
  const error = record(fields?.['error']);
  const detail =
    fields?.['detail'] ?? error?.['message'] ?? fields?.['error'] ?? fields?.['message'];
  const text =
    stringOf(detail) ??
    (detail === undefined ? ('text' in body ? body.text.trim() : '') : JSON.stringify(detail));
  const type = response.headers.get('x-fal-error-type') ?? stringOf(fields?.['error_type']);
  const who = type === undefined ? 'the app answered' : 'the request ended with';
  const words = text === '' ? '' : `: ${text.slice(0, 2_000)}`;
  return new CommandFailure('failed', `${who} HTTP ${response.status}${words}`, {
    code: type,
    next,
  });
}
