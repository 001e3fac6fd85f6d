// Starts runmesh's own programs as processes on loopback, each with its own data folder, and ends them by their handle. The demo
// and the system tests use it; an operator would use systemd.
import { spawn, type ChildProcess } from 'node:child_process';
import { createServer } from 'node:net';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const CLI = join(import.meta.dirname, '..', '..', 'cli', 'main.ts');

export interface Program {
  readonly name: string;
  readonly process: ChildProcess;
  /** Where its output goes. */
  readonly log: string;
  /** Settles when it has ended. */
  readonly ended: Promise<void>;
  /** SIGTERM, and SIGKILL when that is not heard in time. Safe to call twice. */
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}

export interface ProgramOptions {
  name: string;
  args: readonly string[];
  /** Folder of its log. */
  folder: string;
  env: NodeJS.ProcessEnv;
  stopWithinMs?: number;
}

/** Starts `runmesh ARGS`. */
export async function startProgram(options: ProgramOptions): Promise<Program> {
  const { name, args, folder, env, stopWithinMs = 20_000 } = options;
  await mkdir(folder, { recursive: true });
  const log = join(folder, `${name}.log`);
  // It writes by itself: through us it would lose its log, and perhaps its life, when we end first.
  const output = openSync(log, 'a');
  // Its own process group: a Ctrl-C at the terminal reaches only us, and we end it in order.
  const child = spawn(process.execPath, [CLI, ...args], {
    env,
    stdio: ['ignore', output, output],
    detached: true,
  });
  closeSync(output);
  const forgotten = (): void => void child.kill('SIGTERM');
  process.once('exit', forgotten);
  const ended = new Promise<void>((resolve) => {
    const gone = (): void => {
      process.off('exit', forgotten);
      resolve();
    };
    child.once('exit', gone).once('error', gone);
  });
  const stop = async (signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return ended;
    child.kill(signal);
    const late = setTimeout(() => child.kill('SIGKILL'), stopWithinMs);
    await ended;
    clearTimeout(late);
  };
  return { name, process: child, log, ended, stop };
}

export interface Mesh {
  /** `http://127.0.0.1:PORT` of the coordinator. */
  readonly url: string;
  coordinator: Program;
  readonly agents: Program[];
  /** Starts the coordinator again on the same data and port, e.g. after it was killed. */
  restartCoordinator(): Promise<void>;
  /** Starts an agent again on the same data; resolves when the coordinator counts it as ready. */
  restartAgent(name: string): Promise<void>;
  /** Runs `runmesh ARGS` against this mesh and gives its output; throws with it when the exit code is not 0. */
  cli(...args: string[]): Promise<string>;
  stop(): Promise<void>;
}

export interface MeshOptions {
  folder: string;
  agents: readonly string[];
  /** With the programs that agents need on PATH. */
  env: NodeJS.ProcessEnv;
}

/** A coordinator and agents with separate caches; resolves when all are linked. */
export async function startMesh(options: MeshOptions): Promise<Mesh> {
  const { folder, env } = options;
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const coordinatorArgs = [
    'coordinator',
    '--listen',
    `127.0.0.1:${port}`,
    '--data',
    join(folder, 'coordinator'),
  ];
  const start = (name: string, args: string[]): Promise<Program> =>
    startProgram({ name, args, folder: join(folder, 'logs'), env });
  const settings = join(folder, 'coordinator.yaml');
  await mkdir(folder, { recursive: true });
  await writeFile(settings, 'drain_seconds: 1\n');
  coordinatorArgs.push('--config', settings);
  const agents: Program[] = [];
  const startAgent = (name: string): Promise<Program> => {
    const links = ['--coordinator', `ws://127.0.0.1:${port}`, '--listen', '127.0.0.1:0'];
    const own = ['--data', join(folder, name), '--name', name];
    return start(name, ['agent', ...links, ...own, '--allow-private', '127.0.0.0/8']);
  };
  const isReady = async (name: string): Promise<boolean> => {
    const { items } = (await (await fetch(`${url}/v1/nodes`)).json()) as {
      items: { name: string; state: string; unreachable?: string }[];
    };
    return items.some((node) => node.name === name && node.state === 'ready' && !node.unreachable);
  };
  const linked = (agent: Program): Promise<void> =>
    until(`${agent.name} is linked (its log: ${agent.log})`, () => {
      aliveOrThrow(agent);
      return isReady(agent.name);
    });
  const mesh: Mesh = {
    url,
    coordinator: await start('coordinator', coordinatorArgs),
    agents,
    async restartCoordinator() {
      mesh.coordinator = await start('coordinator', coordinatorArgs);
      await answering(mesh.coordinator, `${url}/readyz`);
    },
    async restartAgent(name) {
      await until(`the coordinator misses ${name}`, async () => !(await isReady(name)));
      const agent = await startAgent(name);
      agents.splice(
        agents.findIndex((before) => before.name === name),
        1,
        agent,
      );
      await linked(agent);
    },
    cli: (...args) => runCli(args, { ...env, RUNMESH_URL: url }),
    async stop() {
      // Agents first: their goodbyes reach a coordinator that still listens.
      await Promise.all(agents.map((agent) => agent.stop()));
      await mesh.coordinator.stop();
    },
  };
  try {
    await answering(mesh.coordinator, `${url}/readyz`);
    for (const name of options.agents) agents.push(await startAgent(name));
    for (const agent of agents) await linked(agent);
  } catch (thrown) {
    await mesh.stop();
    throw thrown;
  }
  return mesh;
}

/** Calls `check` until it is true. @throws Error naming `what` after `withinMs` */
export async function until(
  what: string,
  check: () => Promise<boolean>,
  withinMs = 30_000,
): Promise<void> {
  const end = Date.now() + withinMs;
  for (;;) {
    if (await check()) return;
    if (Date.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

async function answering(program: Program, url: string): Promise<void> {
  await until(`${program.name} answers (its log: ${program.log})`, async () => {
    aliveOrThrow(program);
    return fetch(url).then(
      (response) => response.ok,
      () => false,
    );
  });
}

function aliveOrThrow(program: Program): void {
  if (program.process.exitCode !== null)
    throw new Error(`${program.name} ended:\n${readFileSync(program.log, 'utf8').slice(-2000)}`);
}

function runCli(args: readonly string[], env: NodeJS.ProcessEnv): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
    child.once('close', (code) =>
      code === 0
        ? resolve(out)
        : reject(new Error(`runmesh ${args.join(' ')} ended with ${String(code)}:\n${err}${out}`)),
    );
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}
