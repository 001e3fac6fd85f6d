// Our side: a coordinator and an agent as people start them, two processes on loopback, with their own folders.
import { writeFileSync } from 'node:fs';
import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { request } from 'undici';
import { stringify } from 'yaml';
import type { AppFile } from '../../shared/app-spec.ts';
import { command } from '../tools/command.ts';
import type { RowParts } from './row.ts';
import { freePort, waitFor, type Program } from './stage.ts';

const MAIN = join(import.meta.dirname, '../../cli/main.ts');
const START_WITHIN_MS = 20_000;
const RUNNER_WITHIN_MS = 30_000;

export interface Platform {
  /** `http://127.0.0.1:41234` */
  readonly url: string;
  readonly coordinator: Program;
  readonly agent: Program;
  deploy(app: AppFile): Promise<void>;
}

/** Starts both; they are linked when this resolves. `envOf` says what is added to the environment of each. */
export async function startPlatform(
  parts: Pick<RowParts, 'stage' | 'tools' | 'profiles'>,
  envOf: (program: 'coordinator' | 'agent') => Readonly<Record<string, string>> = () => ({}),
): Promise<Platform> {
  const { stage, tools, profiles } = parts;
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const startOne = (name: 'coordinator' | 'agent', args: readonly string[]): Program => {
    const data = join(stage.folder, `${name}-data`);
    const profile = profiles ? ['--cpu-prof', `--cpu-prof-name=${name}-${port}.cpuprofile`] : [];
    const folder = profiles ? [`--cpu-prof-dir=${profiles}`] : [];
    const node = [...profile, ...folder, MAIN, name, '--data', data, ...args];
    return stage.start(name, process.execPath, node, { env: { ...tools.env(), ...envOf(name) } });
  };
  const coordinator = startOne('coordinator', ['--listen', `127.0.0.1:${port}`]);
  await coordinator.saying(/coordinator\.ready/, START_WITHIN_MS, stage.signal);
  const link = ['--coordinator', `ws://127.0.0.1:${port}`, '--listen', '127.0.0.1:0'];
  const agent = startOne('agent', link);
  await agent.saying(/agent\.linked/, START_WITHIN_MS, stage.signal);
  const deploy = (app: AppFile): Promise<void> => deployApp(app, url, stage.folder);
  return { url, coordinator, agent, deploy };
}

/** With the real command, as people do. */
async function deployApp(app: AppFile, url: string, folder: string): Promise<void> {
  const file = join(folder, `${app.app.replace('/', '-')}.yaml`);
  writeFileSync(file, stringify(app));
  const env = { ...process.env, RUNMESH_URL: url };
  const ended = await command(process.execPath, [MAIN, 'deploy', file], { env });
  if (ended.code !== 0) throw new Error(`deploy: ${ended.stderr.slice(-2000)}`);
}

/** The bench's app, deployed as a bare process, with one runner that stays. */
export interface EchoRunner {
  readonly app: string;
  readonly pid: number;
  /** Where the runner itself listens: the rival calls the same process. */
  readonly port: number;
  /** Calls that have arrived at the runner so far. */
  calls(): Promise<number>;
}

export async function deployEcho(
  platform: Platform,
  parts: Pick<RowParts, 'stage'>,
): Promise<EchoRunner> {
  const { stage } = parts;
  const app = 'bench/echo';
  const dir = join(stage.folder, 'echo-app');
  await mkdir(dir, { recursive: true });
  await cp(join(import.meta.dirname, 'app/server.mjs'), join(dir, 'server.mjs'));
  await platform.deploy({
    app,
    command: [process.execPath, 'server.mjs'],
    dir: 'echo-app',
    // As often as the default says: asking for health is part of what we do.
    health: { path: '/health' },
    scaling: { min_concurrency: 1, max_concurrency: 1, max_multiplexing: 256, keep_alive: 3600 },
    timeouts: { startup_timeout: 30, request_timeout: 60, termination_grace_period_seconds: 1 },
  });
  const about = await waitFor('a runner', RUNNER_WITHIN_MS, stage.signal, async () => {
    const { statusCode, body } = await request(`${platform.url}/run/${app}/about`);
    const text = await body.text();
    return statusCode === 200 ? (JSON.parse(text) as { pid: number; port: number }) : undefined;
  });
  const calls = async (): Promise<number> => {
    const { body } = await request(`http://127.0.0.1:${about.port}/about`);
    return ((await body.json()) as { calls: number }).calls;
  };
  return { app, ...about, calls };
}
