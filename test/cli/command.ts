// Runs the real command as a child process, and stands in for a coordinator with a real HTTP server that answers what
// it is told to. The shapes it answers are checked against the coordinator's own schemas in command.test.ts.
import { spawn, type ChildProcess } from 'node:child_process';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { runCommand } from '../../cli/run-command.ts';
import { seededChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';

const MAIN = join(import.meta.dirname, '../../cli/main.ts');

export interface Ended {
  code: number | null;
  out: string;
  err: string;
}

export interface Running {
  child: ChildProcess;
  ended: Promise<Ended>;
  /** Resolves once stderr holds `text`. */
  said(text: string): Promise<void>;
}

export interface RunOptions {
  url?: string;
  env?: Record<string, string>;
  stdin?: string;
  cwd?: string;
}

export function start(args: readonly string[], options: RunOptions = {}): Running {
  const env = {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    ...(options.url === undefined ? {} : { RUNMESH_URL: options.url }),
    ...options.env,
  };
  const child = spawn(process.execPath, [MAIN, ...args], { env, cwd: options.cwd });
  let out = '';
  let err = '';
  const waiting = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
    for (const look of waiting) look();
  });
  child.stdin.end(options.stdin ?? '');
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, out, err }));
  });
  const said = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (!err.includes(text)) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
      void ended.then(() => reject(new Error(`ended without saying ${text}: ${err}`)));
    });
  return { child, ended, said };
}

export function run(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  return start(args, options).ended;
}

/** The same in this process, for what needs no process of its own: many times as fast. */
export async function runHere(
  args: readonly string[],
  options: RunOptions & { columns?: number } = {},
): Promise<Ended> {
  const ended = { code: 0, out: '', err: '' };
  const { columns } = options;
  const terminal = {
    tty: columns !== undefined,
    columns,
    colour: false,
    errorTty: false,
    errorColumns: 80,
    out: (text: string) => void (ended.out += text),
    outBytes: async (bytes: Uint8Array) => void (ended.out += Buffer.from(bytes).toString()),
    error: (text: string) => void (ended.err += text),
  };
  const env = {
    ...(options.url === undefined ? {} : { RUNMESH_URL: options.url }),
    ...options.env,
  };
  const shell = { terminal, env, clock: systemClock, chance: seededChance(1), version: '0.0.0' };
  ended.code = await runCommand(shell, args);
  return ended;
}

export interface Call {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  body: string;
}

/** An answer: a value becomes JSON with 200; a function writes by itself. */
export type Answer =
  | { status?: number; json: unknown }
  | { status?: number; headers: Record<string, string>; body: string | Uint8Array }
  | ((response: ServerResponse, call: Call) => void);

export interface Peer extends AsyncDisposable {
  url: string;
  calls: Call[];
  /** Answers by `METHOD path`; may be changed at any time. */
  answers: Map<string, Answer>;
  server: Server;
}

export async function startPeer(answers: Record<string, Answer>): Promise<Peer> {
  const calls: Call[] = [];
  const table = new Map(Object.entries(answers));
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method = '', url: path = '', headers } = request;
      const call = { method, path, headers, body: Buffer.concat(chunks).toString('latin1') };
      calls.push(call);
      reply(table.get(`${method} ${path}`), response, call);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    calls,
    answers: table,
    server,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function reply(answer: Answer | undefined, response: ServerResponse, call: Call): void {
  if (typeof answer === 'function') return answer(response, call);
  if (answer === undefined) {
    const error = { code: 'NOT_FOUND', message: `no ${call.path}`, doc: 'There is no such thing.' };
    response.writeHead(404, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error }));
  } else if ('json' in answer) {
    response.writeHead(answer.status ?? 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer.json));
  } else {
    response.writeHead(answer.status ?? 200, answer.headers);
    response.end(answer.body);
  }
}
