// The coordinator, put together: opens the store, wires shell, links and API, listens, and takes it all apart in reverse.
import { mkdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { Registry } from 'prom-client';
import type { Chance } from '../shared/chance.ts';
import type { Clock } from '../shared/clock.ts';
import { Failure } from '../shared/failure.ts';
import type { Log } from '../shared/log.ts';
import { resolveImage } from '../shared/registry/resolve-image.ts';
import { VERSION } from '../shared/version.ts';
import { openMetrics } from './api/metrics.ts';
import { openApi } from './api/server.ts';
import { formatHostPort } from '../shared/host-port.ts';
import type { CoordinatorConfig } from './config.ts';
import { Core } from './core/core.ts';
import { openLinkServer } from './link/link-server.ts';
import { openPayloadStore } from './payload/payload-store.ts';
import { Performer } from './shell/performer.ts';
import { Shell } from './shell/shell.ts';
import { ShellPort } from './shell/shell-port.ts';
import { defaultTiming } from './state/core-state.ts';
import { openLevelStore } from './store/level-store.ts';

export interface CoordinatorParts {
  clock: Clock;
  chance: Chance;
  log: Log;
}

export interface Coordinator {
  /** `http://host:port`, as bound. */
  readonly url: string;
  /** Takes nothing new, lets calls finish for a while, commits what is under way. Safe to call twice. */
  stop(): Promise<void>;
}

/** @throws Failure STORE_LOCKED, STORE_TOO_NEW, STORE_CORRUPT, CONFIG_INVALID; what was made is undone first */
export async function startCoordinator(
  config: CoordinatorConfig,
  parts: CoordinatorParts,
): Promise<Coordinator> {
  const { clock, chance, log } = parts;
  const data = resolve(config.data);
  await mkdir(data, { recursive: true, mode: 0o700 });
  await using undo = new AsyncDisposableStack();
  const registry = new Registry();
  const metrics = openMetrics(registry);
  const performer = new Performer(log, metrics);
  const shell = new Shell({
    openStore: () => openLevelStore(join(data, 'queue')),
    clock,
    chance,
    timing: { ...defaultTiming, heartbeatMs: config.heartbeatMs, lostMs: config.lostMs },
    holder: `${hostname()}:${process.pid}`,
    effects: performer,
  });
  await shell.start();
  undo.defer(() => shell.stop());
  const payloads = await openPayloadStore(join(data, 'payloads'), chance);
  const { tokenKey } = coreOf(shell).state;
  const links = openLinkServer({
    port: {
      tokenKey,
      apply: (event) => shell.apply(event),
      newLinkId: counter(),
      ready: () => port.ready(),
    },
    token: config.token,
    timing: { heartbeatMs: config.heartbeatMs, suspectMs: config.suspectMs, lostMs: config.lostMs },
    clock,
    chance,
    log,
  });
  undo.defer(() => links.closeAll(new Failure('SHUTTING_DOWN', 'the coordinator is stopping')));
  const port = new ShellPort({ shell, performer, links, payloads, clock });
  performer.wire({ shell, links, tokenKey });
  const api = await openApi({
    port,
    payloads,
    link: links,
    tokenKey,
    config,
    clock,
    chance,
    log,
    registry,
    metrics,
    resolveImage: async (ref, signal) => (await resolveImage(ref, { clock, signal })).digest,
    version: VERSION,
  });
  const { host, port: wished } = config.listen;
  const address = await api.listen(host, wished);
  const url = `http://${formatHostPort({ host, port: address.port })}`;
  log.event('coordinator.ready', { url, epoch: coreOf(shell).state.epoch, version: VERSION });

  const rest = undo.move();
  let ended: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    await api.close(config.drainSeconds * 1000);
    await rest.disposeAsync();
    log.event('coordinator.stopped');
  };
  return { url, stop: () => (ended ??= stop()) };
}

function coreOf(shell: Shell): Core {
  const { core } = shell;
  if (core instanceof Core) return core;
  throw core;
}

function counter(): () => number {
  let last = 0;
  return () => (last += 1);
}
