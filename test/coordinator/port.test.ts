// CoordinatorPort: the real shell and core over the store in memory, and the fake of the api tests, by one suite.
import { Registry } from 'prom-client';
import t from 'tap';
import { openMetrics } from '../../coordinator/api/metrics.ts';
import { Core } from '../../coordinator/core/core.ts';
import { openLinkServer } from '../../coordinator/link/link-server.ts';
import { openPayloadStore } from '../../coordinator/payload/payload-store.ts';
import { Performer } from '../../coordinator/shell/performer.ts';
import { Shell } from '../../coordinator/shell/shell.ts';
import { ShellPort } from '../../coordinator/shell/shell-port.ts';
import { defaultTiming } from '../../coordinator/state/core-state.ts';
import { openMemoryStore } from '../../coordinator/store/memory-store.ts';
import { appSpec } from '../../shared/app-spec.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { digestOf } from '../../shared/digest.ts';
import { silentLog } from '../../shared/log.ts';
import { portConformance } from '../conformance/coordinator-port.ts';
import { FakePort } from '../fakes/fake-port.ts';

const clock = systemClock;
const chance = systemChance;

void t.test('the fake', async (t) => {
  portConformance(t, async () => {
    const port = new FakePort(await openPayloadStore(t.testdir(), chance));
    port.apps.set('acme/echo', async () => ({ status: 200, body: '{}' }));
    port.held = true;
    return { port, close: async () => undefined };
  });
});

void t.test('the shell and the core', async (t) => {
  portConformance(t, async () => {
    const performer = new Performer(silentLog, openMetrics(new Registry()));
    const shell = new Shell({
      openStore: async () => openMemoryStore(),
      clock,
      chance,
      timing: defaultTiming,
      holder: 'test',
      effects: performer,
    });
    await shell.start();
    if (!(shell.core instanceof Core)) throw shell.core;
    const { tokenKey } = shell.core.state;
    const payloads = await openPayloadStore(t.testdir(), chance);
    const timing = { heartbeatMs: 2_000, suspectMs: 5_000, lostMs: 10_000 };
    const links = openLinkServer({
      port: {
        tokenKey,
        apply: (event) => shell.apply(event),
        newLinkId: () => 1,
        ready: () => port.ready(),
      },
      token: undefined,
      timing,
      clock,
      chance,
      log: silentLog,
    });
    const port = new ShellPort({ shell, performer, links, payloads, clock });
    performer.wire({ shell, links, tokenKey });
    const spec = appSpec.parse({ app: 'acme/echo', image: 'registry.example/echo:1' });
    await port.ask('deploy', { spec, imageDigest: digestOf('image') });
    return { port, close: () => shell.stop() };
  });
});
