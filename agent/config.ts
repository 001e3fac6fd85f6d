// The settings of an agent: one table, from which file keys, environment names and flags follow (shared/config.ts).
import { hostname } from 'node:os';
import { z } from 'zod';
import { parseSize } from '../shared/app-spec.ts';
import { loadConfig, type ConfigOf, type ConfigTable } from '../shared/config.ts';
import { Failure } from '../shared/failure.ts';
import { formatHostPort, hostPort, isLoopbackHost } from '../shared/host-port.ts';

const coordinatorUrl = z.string().transform((text, context) => {
  const url = URL.parse(text);
  if (url && (url.protocol === 'ws:' || url.protocol === 'wss:') && !url.username)
    return url.pathname === '/' ? `${url.protocol}//${url.host}` : url.href.replace(/\/$/, '');
  context.addIssue({ code: 'custom', message: 'expected ws://host:port or wss://host:port' });
  return z.NEVER;
});

const size = z.union([z.string(), z.number()]).transform((value, context) => {
  const bytes = parseSize(value);
  if (bytes !== undefined && bytes > 0) return bytes;
  context.addIssue({ code: 'custom', message: 'expected a size such as 64GiB' });
  return z.NEVER;
});

const labelName = z.string().min(1).max(128);
const labelValue = z.coerce.string().max(256);
const labels = z
  .union([z.record(labelName, labelValue), z.array(z.string())])
  .transform((value, context) => {
    if (!Array.isArray(value)) return value;
    const entries = value.map((pair) => [
      pair.split('=')[0] ?? '',
      pair.slice(pair.indexOf('=') + 1),
    ]);
    if (value.some((pair) => !/^[^=]{1,128}=.{0,256}$/.test(pair)))
      context.addIssue({ code: 'custom', message: 'expected name=value' });
    return Object.fromEntries(entries) as Record<string, string>;
  });

const list = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean);

export const agentTable = {
  coordinator: { schema: coordinatorUrl, doc: 'The coordinator, ws://host:port.' },
  listen: {
    schema: hostPort.prefault('127.0.0.1:8801'),
    doc: 'Where the HTTP of the agent listens; port 0 takes a free one.',
  },
  advertise: {
    schema: hostPort.optional(),
    doc: 'host:port at which the coordinator dials this agent.',
  },
  data: { schema: z.string().min(1).default('/var/lib/runmesh/agent'), doc: 'The data folder.' },
  name: {
    schema: z
      .string()
      .min(1)
      .max(256)
      .default(() => hostname()),
    doc: 'Name of the node, for people.',
  },
  labels: { schema: labels.prefault({}), fromText: list, doc: 'Labels of the node, name=value.' },
  token: {
    schema: z.string().min(8).max(1024).optional(),
    secret: true,
    doc: 'The secret that agents and coordinator share.',
  },
  allowPrivate: {
    schema: z.array(z.string()).default([]),
    fromText: list,
    doc: 'Private addresses or networks that weights may be fetched from.',
  },
  toolsPath: {
    schema: z.string().optional(),
    doc: 'Folders put before PATH to find runc, conmon and the like.',
  },
  cpu: {
    schema: z.coerce.number().positive().max(4096).optional(),
    doc: 'CPU cores to hand out; default: what the machine has.',
  },
  memory: { schema: size.optional(), doc: 'Memory to hand out; default: what the machine has.' },
  drainMs: {
    schema: z.coerce.number().int().min(0).max(86_400_000).default(0),
    doc: 'How long running attempts may go on when the agent is told to stop.',
  },
  logLevel: {
    schema: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
    doc: 'Least level that is logged.',
  },
} satisfies ConfigTable;

export type AgentConfig = ConfigOf<typeof agentTable>;

/** Settings as they are given in code (`runmesh dev`, tests): what is left out takes its default. */
export type AgentSettings = {
  [K in keyof typeof agentTable]?: z.input<(typeof agentTable)[K]['schema']>;
};

/** @throws Failure CONFIG_INVALID */
export async function loadAgentConfig(sources: {
  file?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  flags: Readonly<Record<string, unknown>>;
}): Promise<AgentConfig> {
  const config = await loadConfig({ table: agentTable, ...sources });
  if (!isLoopbackHost(config.listen.host) && config.token === undefined)
    throw new Failure(
      'CONFIG_INVALID',
      `listen: ${formatHostPort(config.listen)} is beyond loopback, so a token is required; set --token`,
      { detail: { key: 'listen' } },
    );
  return config;
}

/** The same from code alone. */
export function agentConfig(settings: AgentSettings): Promise<AgentConfig> {
  return loadAgentConfig({ env: {}, flags: settings });
}
