// The coordinator's HTTP edge on a real port over the fake core, for the api tests.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { createFalClient, type FalClient } from '@fal-ai/client';
import { openMetrics } from '../../coordinator/api/metrics.ts';
import { openApi, type Api, type ApiConfig, type ApiParts } from '../../coordinator/api/server.ts';
import { openPayloadStore, type PayloadStore } from '../../coordinator/payload/payload-store.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { digestOf } from '../../shared/digest.ts';
import { silentLog } from '../../shared/log.ts';
import { FakePort } from '../fakes/fake-port.ts';

export interface World {
  base: string;
  tcpPort: number;
  api: Api;
  port: FakePort;
  payloads: PayloadStore;
  tokenKey: Uint8Array;
  fal: FalClient;
  errors: string[];
  close(): Promise<void>;
}

const HOSTS: Record<string, string> = { 'fal.run': '/run', 'queue.fal.run': '/queue' };

/** fal's own client, told only where the hosts are. */
export function falClient(base: string): FalClient {
  return createFalClient({
    credentials: 'key:secret',
    requestMiddleware: async (request) => {
      const url = new URL(request.url);
      return { ...request, url: `${base}${HOSTS[url.host]}${url.pathname}${url.search}` };
    },
  });
}

export const development: ApiConfig = {
  token: undefined,
  allowedHosts: [],
  allowedOrigins: [],
  publicUrl: undefined,
  trustProxy: false,
};

export async function openWorld(
  config: Partial<ApiConfig> = {},
  more: Partial<ApiParts> = {},
): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'runmesh-api-'));
  const payloads = await openPayloadStore(folder, systemChance);
  const port = new FakePort(payloads);
  port.apps.set('acme/echo', async (_record, input) => ({
    status: 200,
    body: Buffer.from(input).toString(),
  }));
  const registry = new Registry();
  const tokenKey = systemChance.bytes(32, 'token key');
  const errors: string[] = [];
  const api = await openApi({
    port,
    payloads,
    tokenKey,
    link: { upgrade: (_req, socket) => void socket.destroy() },
    config: { ...development, ...config },
    clock: systemClock,
    chance: systemChance,
    log: {
      ...silentLog,
      error: (message, fields) => errors.push(`${message} ${String(fields?.['cause'])}`),
    },
    registry,
    metrics: openMetrics(registry),
    resolveImage: async (ref) => digestOf(ref),
    version: '0.0.0-test',
    ...more,
  });
  const { port: tcpPort } = await api.listen('127.0.0.1', 0);
  const base = `http://127.0.0.1:${tcpPort}`;
  return {
    base,
    tcpPort,
    api,
    port,
    payloads,
    tokenKey,
    errors,
    fal: falClient(base),
    async close() {
      await api.close(0);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Resolves once `test` holds. */
export async function until(test: () => boolean, what: string): Promise<void> {
  const end = systemClock.elapsed() + 5_000;
  while (!test()) {
    if (systemClock.elapsed() > end) throw new Error(`never came: ${what}`);
    await new Promise<void>((resolve) => systemClock.after(5, resolve));
  }
}
