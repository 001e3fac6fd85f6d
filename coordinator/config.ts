// Configuration of the coordinator: one table on the loader of shared/config.ts (file < environment < flag).
//
// K1  A coordinator that can be reached from beyond loopback has a token, or does not start (DESIGN §6).
import { z } from 'zod';
import { describeConfig, loadConfig, type ConfigOf, type ConfigTable } from '../shared/config.ts';
import { Failure } from '../shared/failure.ts';
import { hostPort, isLoopbackHost } from '../shared/host-port.ts';

const milliseconds = (fallback: number) =>
  z.coerce.number().int().min(50).max(600_000).default(fallback);
const names = z.array(z.string().min(1).max(256)).max(256);
const list = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
const origin = z.string().regex(/^https?:\/\/[^/\s]+$/, 'expected scheme://host[:port]');

export const coordinatorTable = {
  listen: {
    schema: hostPort.prefault('127.0.0.1:8800'),
    doc: 'Address and port to serve on.',
  },
  data: {
    schema: z.string().min(1).max(4096).default('/var/lib/runmesh/coordinator'),
    doc: 'Folder of the queue and the payloads.',
  },
  token: {
    schema: z.string().min(16, 'expected at least 16 characters').max(1024).optional(),
    doc: 'Secret shared with agents and callers; needed to listen beyond loopback.',
    secret: true,
  },
  publicUrl: {
    schema: z
      .string()
      .regex(/^https?:\/\/[^\s?#]+$/, 'expected http(s)://host[/prefix]')
      .transform((url) => url.replace(/\/+$/, ''))
      .optional(),
    doc: 'URL that answers name; default: what the caller used.',
  },
  trustProxy: {
    schema: z.boolean().default(false),
    doc: 'Believe X-Forwarded-Proto and X-Forwarded-Host of the proxy in front.',
    fromText: (text: string): unknown =>
      ({ true: true, '1': true, false: false, '0': false })[text] ?? text,
  },
  allowedHosts: {
    schema: names.transform((hosts) => hosts.map((host) => host.toLowerCase())).default([]),
    doc: 'Further host names by which callers may reach a coordinator without a token.',
    fromText: list,
  },
  allowedOrigins: {
    schema: z.array(origin).max(256).default([]),
    doc: 'Web pages (scheme://host) that may call from a browser.',
    fromText: list,
  },
  heartbeatMs: { schema: milliseconds(2_000), doc: 'Pause between heartbeats to agents.' },
  suspectMs: { schema: milliseconds(5_000), doc: 'Silence after which a node gets no new work.' },
  lostMs: { schema: milliseconds(10_000), doc: 'Silence after which a node is lost.' },
  drainSeconds: {
    schema: z.coerce.number().min(0).max(3_600).default(30),
    doc: 'How long a stopping coordinator lets calls finish.',
  },
  logLevel: {
    schema: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
    doc: 'Least level that is logged.',
  },
} as const satisfies ConfigTable;

export type CoordinatorConfig = ConfigOf<typeof coordinatorTable>;

/** @throws Failure CONFIG_INVALID naming the key, and the line where a file is to blame */
export async function loadCoordinatorConfig(sources: {
  file?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  flags: Readonly<Record<string, unknown>>;
}): Promise<CoordinatorConfig> {
  const config = await loadConfig({ table: coordinatorTable, ...sources });
  const { host } = config.listen;
  if (config.token === undefined && !isLoopbackHost(host))
    throw new Failure(
      'CONFIG_INVALID',
      `listen: ${host} can be reached from beyond this machine; set a token, or listen on 127.0.0.1`,
      { detail: { key: 'listen' } },
    );
  if (!(config.heartbeatMs < config.suspectMs && config.suspectMs < config.lostMs))
    throw new Failure(
      'CONFIG_INVALID',
      'suspect_ms: expected heartbeat_ms < suspect_ms < lost_ms',
      {
        detail: { key: 'suspectMs' },
      },
    );
  return config;
}

/** The settings in force, the token redacted. */
export function describeCoordinatorConfig(config: CoordinatorConfig): string {
  return describeConfig(coordinatorTable, config);
}
