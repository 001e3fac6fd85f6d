// What a system test stands on: a folder, a mesh of real processes, a real registry with the busybox image, fal's client,
// and at the end the proof that nothing is left.
import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { FalClient } from '@fal-ai/client';
import { falClient } from '../../examples/demo/fal-client.ts';
import { startMesh, until, type Mesh } from '../../examples/demo/programs.ts';
import { buildBusyboxImage, imageTools } from '../../examples/images/build-images.ts';
import { push, startRegistry } from '../../examples/images/registry.ts';
import type { NodeView, RunnerView } from '../../coordinator/core/query.ts';
import type { RequestView } from '../../coordinator/api/request-view.ts';
import { runHere, type Ended } from '../cli/command.ts';
import { skipWithoutRoot, tools, toolsFolder, type Tools } from '../tools/tools.ts';
import { leftovers } from './leftovers.ts';

const debian = await tools(['runtime', 'images']);

/** Why these tests cannot run here; false when they can. */
export async function whyNotHere(): Promise<string | false> {
  return debian.lacks('runc', 'conmon', 'ip', 'nft', ...imageTools) || (await skipWithoutRoot());
}

export interface Stage {
  readonly folder: string;
  readonly mesh: Mesh;
  readonly debian: Tools;
  readonly client: FalClient;
  /** `127.0.0.1:41234` of the registry. */
  readonly registry: string;
  /** A reference of the busybox image in it. */
  readonly image: string;
  /** Environment for further programs. */
  readonly env: NodeJS.ProcessEnv;
  /** Runs the real command against the mesh, in this process: it is called often. */
  cli(...args: string[]): Promise<Ended>;
  /** Writes an app file and deploys it. @throws Error with what the command said */
  deploy(text: string): Promise<void>;
  get<T>(path: string): Promise<T>;
  /** Oldest first; with those that ended. */
  runners(app: string): Promise<RunnerView[]>;
  request(id: string): Promise<RequestView>;
  log(runnerId: string): Promise<string>;
  node(name: string): Promise<NodeView | undefined>;
  /** Resolves with the runners once `check` likes them. */
  runnersWhen(
    app: string,
    what: string,
    check: (runners: RunnerView[]) => boolean,
  ): Promise<RunnerView[]>;
  /** What agents of this mesh have on the machine now. */
  leftovers(...agents: string[]): string[];
}

/** Teardown ends everything by its handle, also when the test is told to stop. */
export async function openStage(
  t: { teardown(end: () => Promise<void>): unknown },
  agents: readonly string[],
): Promise<Stage> {
  const ends = new AsyncDisposableStack();
  t.teardown(() => ends.disposeAsync());
  // `exit` handlers tell the programs to stop; they end in order by themselves.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'runmesh-system-')));
  ends.defer(() => rm(folder, { recursive: true, force: true }));
  const image = await buildBusyboxImage({ tools: debian, out: join(toolsFolder(), 'images') });
  const registry = await startRegistry({ tools: debian, dataDir: join(folder, 'registry') });
  ends.defer(() => registry.stop());
  const reference = `${registry.host}/demo/busybox:1`;
  await push(debian, image, reference);
  const env = withNode(debian.env());
  const mesh = await startMesh({ folder, agents, env });
  ends.defer(() => mesh.stop());

  const get = async <T>(path: string): Promise<T> => {
    const response = await fetch(`${mesh.url}${path}`);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  };
  const cli: Stage['cli'] = (...args) => runHere(args, { url: mesh.url });
  const runners: Stage['runners'] = async (app) => {
    const { items } = await get<{ items: RunnerView[] }>(`/v1/runners?all=true&app=${app}`);
    return items.sort((a, b) => (a.id < b.id ? -1 : 1));
  };
  let files = 0;
  return {
    ...{ folder, mesh, debian, env, cli, get, runners },
    client: falClient(mesh.url),
    registry: registry.host,
    image: reference,
    async deploy(text) {
      const file = join(folder, `app-${(files += 1)}.yaml`);
      await writeFile(file, text);
      const { code, err } = await cli('deploy', file);
      if (code !== 0) throw new Error(`deploy ended with ${String(code)}: ${err}`);
    },
    request: (id) => get<RequestView>(`/v1/requests/${id}`),
    log: async (id) => (await fetch(`${mesh.url}/v1/runners/${id}/logs`)).text(),
    async node(name) {
      const { items } = await get<{ items: NodeView[] }>('/v1/nodes');
      return items.find((node) => node.name === name);
    },
    async runnersWhen(app, what, check) {
      let seen: RunnerView[] = [];
      await until(`${app}: ${what}`, async () => check((seen = await runners(app))));
      return seen;
    },
    leftovers: (...names) =>
      leftovers(
        (names.length > 0 ? names : agents).map((name) => join(folder, name)),
        debian.path('nft'),
      ),
  };
}

/** Apps and agents find the Node that runs us. */
function withNode(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, PATH: `${dirname(process.execPath)}:${env['PATH'] ?? ''}` };
}
