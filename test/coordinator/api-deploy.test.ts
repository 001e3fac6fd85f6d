// A deploy is bounded: a new app needs room, a new revision does not. The version that is told is the package's.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { deploy } from '../../coordinator/api/deploy.ts';
import { openPayloadStore } from '../../coordinator/payload/payload-store.ts';
import { seededChance } from '../../shared/chance.ts';
import { VERSION } from '../../shared/version.ts';
import { appSpec } from '../../shared/app-spec.ts';
import { openMemoryStore } from '../../coordinator/store/memory-store.ts';
import { CoreWorld } from '../fakes/core-world.ts';

void t.test('the number of apps is bounded, revisions are not', async (t) => {
  const w = new CoreWorld(async () => openMemoryStore());
  await w.shell.start();
  const parts = {
    port: {
      ask: w.ask.bind(w),
      query: async (...asked: Parameters<typeof w.query>) => w.query(...asked),
    },
    payloads: await openPayloadStore(join(t.testdir(), 'payloads'), seededChance(1)),
    resolveImage: async () => `sha256:${'a'.repeat(64)}` as const,
    maxApps: 1,
  };
  const of = (app: string) =>
    deploy(
      parts as Parameters<typeof deploy>[0],
      appSpec.parse({ app, image: 'x' }),
      new AbortController().signal,
    );
  t.match(await of('a/one'), { number: 1 });
  t.match(await of('a/one'), { number: 2 });
  await t.rejects(of('a/two'), { code: 'CONFLICT', detail: { field: 'app' } });
  t.equal(w.query('apps', {}).length, 1);
});

void t.test('the version is that of package.json', async (t) => {
  const text = await readFile(join(import.meta.dirname, '../../package.json'), 'utf8');
  t.match(JSON.parse(text), { version: VERSION });
});
