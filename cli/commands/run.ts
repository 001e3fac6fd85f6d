// `runmesh run`: calls an app, through the queue or directly, and ends as the request ends.
import { InvalidArgumentError, Option, type Command } from 'commander';
import { AlreadyTold, CommandFailure } from '../command-failure.ts';
import type { Client } from '../client.ts';
import { followRequest } from '../follow-request.ts';
import { onInterrupt } from '../interrupts.ts';
import { openProgress, type Progress } from '../progress.ts';
import { readInput } from '../request-input.ts';
import { outJson, withClient, type Shell } from '../shell.ts';
import { showResult } from '../show-result.ts';

const EXAMPLES = `
The result goes to stdout, progress to stderr. Ctrl-C asks to cancel the request; a second one leaves it.

Examples:
  $ runmesh run acme/hello --input '{"name":"you"}'
  $ runmesh run acme/ocr --file image_url=receipt.png | jq .text
  $ runmesh run acme/hello/slow --input @input.json --start-timeout 60
  $ generate-input | runmesh run acme/hello --input -
  $ id=$(runmesh run acme/hello --no-wait) && runmesh requests "$id"
  $ runmesh run acme/hello --direct     one call, not queued and not retried`;

interface RunOptions {
  input?: string;
  file: string[];
  direct?: boolean;
  priority?: string;
  startTimeout?: number;
  wait: boolean;
  output?: string;
  json?: boolean;
}

export function fillRun(command: Command, shell: Shell): void {
  command
    .description('Submits a request to an app, waits for it and prints the result.')
    .argument('<app>', 'owner/alias, with a path of the app behind it if it has several')
    .option('-i, --input <json>', 'JSON, @file, or - for stdin (default: {})')
    .option('-f, --file <field=path>', 'put a file into the input as a data URI', collect, [])
    .option('--direct', 'call without the queue: no retries, nothing kept')
    .addOption(new Option('--priority <priority>', 'place in the queue').choices(['normal', 'low']))
    .option('--start-timeout <seconds>', 'give up when no runner has begun by then', seconds)
    .option('--no-wait', 'print the request id and leave')
    .option('-o, --output <file>', 'write the result to a file')
    .option('--json', 'print one JSON object with the result, its status and the request id')
    .addHelpText('after', EXAMPLES)
    .action((target: string, options: RunOptions) =>
      withClient(shell, (client) => run(shell, client, target, options)),
    );
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0.1) return value;
  throw new InvalidArgumentError('Expected seconds above 0.1.');
}

async function run(
  shell: Shell,
  client: Client,
  target: string,
  options: RunOptions,
): Promise<void> {
  const app = /^[a-z0-9][a-z0-9-]*\/[a-z0-9][a-z0-9._-]*(?=\/|$)/.exec(target)?.[0];
  if (app === undefined)
    throw new CommandFailure('usage', `${target} is not owner/alias, or owner/alias/path`, {
      next: 'See `runmesh apps` for the names.',
    });
  if (options.direct && !options.wait)
    throw new CommandFailure('usage', '--no-wait needs the queue, so it excludes --direct');
  const input = await readInput({ input: options.input, files: options.file }, () => stdin(shell));
  const progress = openProgress(shell.terminal, shell.clock);
  try {
    if (options.direct) await direct(shell, client, progress, { target, options, input });
    else await queued(shell, client, progress, { target, app, options, input });
  } finally {
    progress.end();
  }
}

async function stdin(shell: Shell): Promise<string> {
  if (process.stdin.isTTY) shell.terminal.error('Type the input; end it with Ctrl-D.\n');
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) text += String(chunk);
  return text;
}

/** What a cancelled request ends with, whether it waited or its app stopped it. */
const CANCELLED = 499;

interface Call {
  target: string;
  options: RunOptions;
  input: string;
}

function steering({ priority, startTimeout }: RunOptions): Record<string, string> {
  return {
    ...(priority === undefined ? {} : { 'x-fal-queue-priority': priority }),
    ...(startTimeout === undefined ? {} : { 'x-fal-request-timeout': String(startTimeout) }),
  };
}

async function direct(shell: Shell, client: Client, progress: Progress, call: Call): Promise<void> {
  const leave = new AbortController();
  const forget = onInterrupt(() => leave.abort(interrupted('the call was closed')), nothing);
  try {
    progress.show('direct', `calling ${call.target}`);
    const headers = steering(call.options);
    const response = await client.call(call.target, headers, call.input, leave.signal);
    progress.end();
    await showResult(shell, response, {
      json: call.options.json,
      output: call.options.output,
      facts: { request_id: response.headers.get('x-fal-request-id') ?? undefined },
      next: 'See `runmesh runners --all` and `runmesh logs` for what the app did.',
    });
  } finally {
    forget();
  }
}

async function queued(
  shell: Shell,
  client: Client,
  progress: Progress,
  call: Call & { app: string },
): Promise<void> {
  const { app, options } = call;
  const interrupts = new Interrupts(progress);
  try {
    const { signal } = interrupts.submitting;
    const submitted = await client.submit(call.target, steering(options), call.input, signal);
    const id = submitted.request_id;
    if (!options.wait)
      return options.json ? outJson(shell, submitted) : shell.terminal.out(`${id}\n`);
    progress.note(`request ${id}`);
    interrupts.cancelWith(id, () => client.cancel(app, id));
    const view = await followRequest(
      client,
      id,
      { clock: shell.clock, progress },
      interrupts.never,
    );
    progress.end();
    if (interrupts.asked && view.httpStatus === CANCELLED) {
      if (options.json)
        outJson(shell, { request_id: id, app, ok: false, status: CANCELLED, cancelled: true });
      progress.note('cancelled');
      throw new AlreadyTold('interrupted');
    }
    const response = await client.result(app, id);
    const next = `See \`runmesh requests ${id}\`${view.runnerId ? ` and \`runmesh logs ${view.runnerId}\`` : ''}.`;
    const facts = { request_id: id, app, node: view.nodeId, duration_ms: view.durationMs };
    await showResult(shell, response, { json: options.json, output: options.output, facts, next });
  } finally {
    interrupts.forget();
  }
}

const nothing = (): void => undefined;

function interrupted(what: string): CommandFailure {
  return new CommandFailure('interrupted', what);
}

/** Ctrl-C by phase: while the request is being submitted it aborts; once there is an id it asks to cancel. */
class Interrupts {
  readonly submitting = new AbortController();
  readonly never = new AbortController().signal;
  readonly forget: () => void;
  asked = false;
  readonly #progress: Progress;
  #id: string | undefined;
  #cancel: (() => Promise<void>) | undefined;

  constructor(progress: Progress) {
    this.#progress = progress;
    this.forget = onInterrupt(
      () => this.#first(),
      () => {
        progress.end();
        if (this.#id) progress.note(`left; it goes on: runmesh requests ${this.#id}`);
      },
    );
  }

  cancelWith(id: string, cancel: () => Promise<void>): void {
    this.#id = id;
    this.#cancel = cancel;
    if (this.asked) this.#first();
  }

  #first(): void {
    this.asked = true;
    if (!this.#cancel)
      return this.submitting.abort(
        interrupted('ended before the request was known to be accepted'),
      );
    this.#progress.note('asked to cancel; Ctrl-C again leaves without waiting');
    // A cancel that fails leaves the request as it was, and the wait tells what becomes of it.
    this.#cancel().catch((thrown: unknown) => {
      this.#progress.note(
        `the cancel failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      );
    });
  }
}
