// The shape of an app file (DESIGN §6): what is deployed. Every field is fixed here, also those whose behaviour
// comes later: they are accepted, kept in the revision and named by `inactiveFields`. Names and units of scaling and
// timeout fields are fal's (seconds).
import { z } from 'zod';
import { isDigest } from './digest.ts';
import { limits } from './limits.ts';

const UNITS: Record<string, number> = {
  '': 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
};

/** Bytes of a size such as `40GiB`, `512MB` or a plain number of bytes; undefined when it is none. */
export function parseSize(text: string | number): number | undefined {
  const match = /^([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B)?$/.exec(String(text).trim());
  if (!match?.[1]) return undefined;
  return Math.round(Number(match[1]) * (UNITS[match[2] ?? ''] ?? Number.NaN));
}

const size = z.union([z.string(), z.number()]).transform((value, context) => {
  const bytes = parseSize(value);
  if (bytes !== undefined && bytes > 0) return bytes;
  context.addIssue({
    code: 'custom',
    message: 'expected a size such as 40GiB, 512MiB or a number of bytes',
  });
  return z.NEVER;
});

const seconds = (max: number) => z.number().min(0).max(max);
const count = (max: number) => z.number().int().min(0).max(max);

/** `owner/alias`, the alias with an optional environment: `alias--env`. */
export const APP_NAME = /^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9._-]{0,62}$/;
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

const machine = z.strictObject({
  /** Whole GPUs of one node; 0 runs anywhere. */
  gpus: count(limits.gpusPerRunner).default(0),
  /** Part of the GPU's name, e.g. H100. */
  gpu: z.string().min(1).max(64).exactOptional(),
  /** Least memory of each GPU. */
  vram: size.exactOptional(),
  /** CPU cores. */
  cpu: z.number().min(0.05).max(1024).exactOptional(),
  memory: size.exactOptional(),
});

const weight = z.strictObject({
  from: z
    .string()
    .max(4096)
    .regex(/^(https?|hf|s3):\/\/\S+$/, 'expected https://…, http://…, hf://… or s3://…'),
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'expected 64 lowercase hex digits')
    .exactOptional(),
  to: z
    .string()
    .max(1024)
    .regex(/^\/(?!.*(?:^|\/)\.\.(?:\/|$))[^\0]+$/, 'expected an absolute path without ..'),
});

const health = z.strictObject({
  path: z.string().max(1024).regex(/^\//, 'expected a path that begins with /').default('/health'),
  method: z.enum(['GET', 'POST']).default('GET'),
  interval: seconds(3600).default(15),
  timeout: seconds(300).default(5),
  failure_threshold: z.number().int().min(1).max(100).default(3),
  start_period: seconds(3600).default(30),
  call_regularly: z.boolean().default(true),
});

const scaling = z.strictObject({
  min_concurrency: count(10_000).default(0),
  max_concurrency: count(10_000).default(4),
  concurrency_buffer: count(10_000).default(0),
  concurrency_buffer_perc: z.number().min(0).max(1000).default(0),
  scaling_delay: seconds(3600).default(0),
  keep_alive: seconds(30 * 86_400).default(60),
  max_multiplexing: z.number().int().min(1).max(10_000).default(1),
});

const timeouts = z.strictObject({
  startup_timeout: seconds(86_400).default(600),
  request_timeout: seconds(7 * 86_400).default(3600),
  termination_grace_period_seconds: seconds(3600).default(5),
});

export const retryConditions = ['timeout', 'server_error', 'connection_error'] as const;
export type RetryCondition = (typeof retryConditions)[number];

const retries = z.strictObject({
  skip_retry_conditions: z.array(z.enum(retryConditions)).default([]),
  retry_config: z
    .partialRecord(z.enum(retryConditions), z.strictObject({ retries: count(9) }))
    .default({}),
});

export const appSpec = z
  .strictObject({
    app: z.string().regex(APP_NAME, 'expected owner/alias in lowercase letters, digits and -'),
    image: z.string().min(1).max(1024).exactOptional(),
    command: z.array(z.string().max(65_536)).min(1).max(1024).exactOptional(),
    /** A folder beside the app file; the command line packs it and puts its digest into `dir_digest`. */
    dir: z.string().min(1).max(1024).exactOptional(),
    dir_digest: z.string().refine(isDigest, 'expected sha256:<64 hex digits>').exactOptional(),
    dir_size_bytes: count(limits.appDirBytes).exactOptional(),
    port: z.number().int().min(1).max(65_535).default(8080),
    health: health.prefault({}),
    machine: z.union([machine, z.array(machine).min(1).max(16)]).prefault({}),
    weights: z.array(weight).max(limits.appWeights).default([]),
    env: z
      .record(z.string().regex(NAME, 'expected a variable name'), z.coerce.string().max(131_072))
      .refine(
        (env) => Object.keys(env).length <= limits.appEnvEntries,
        `at most ${limits.appEnvEntries} entries`,
      )
      .default({}),
    secrets: z.array(z.string().regex(NAME)).max(256).default([]),
    scaling: scaling.prefault({}),
    timeouts: timeouts.prefault({}),
    retries: retries.prefault({}),
    auth: z.enum(['private', 'shared', 'public']).default('private'),
    strategy: z.enum(['rolling', 'recreate']).default('rolling'),
    priority: z.enum(['normal', 'low']).default('normal'),
    weight: z.number().min(0.01).max(1000).default(1),
    labels: z.record(z.string().max(128), z.string().max(256)).default({}),
    caches: z
      .array(
        z.strictObject({
          name: z.string().max(128),
          path: z.string().max(1024),
          key: z.string().max(256).exactOptional(),
        }),
      )
      .max(64)
      .default([]),
    expiration: seconds(365 * 86_400).exactOptional(),
    registry: z.strictObject({ secret: z.string().max(256) }).exactOptional(),
    user_namespace: z.boolean().default(false),
    message: z.string().max(2048).exactOptional(),
    annotations: z.record(z.string().max(64), z.string().max(16_384)).default({}),
  })
  .superRefine((spec, context) => {
    const issue = (path: string[], message: string): void =>
      context.addIssue({ code: 'custom', path, message });
    if (!spec.image && !spec.command) issue(['image'], 'name an image, or a command with a dir');
    if (spec.image && spec.dir) issue(['dir'], 'a dir belongs to a command without an image');
    if (!spec.image && spec.command && !spec.dir)
      issue(['dir'], 'a command without an image needs a dir');
    const { min_concurrency: min, max_concurrency: max } = spec.scaling;
    if (min > max) issue(['scaling', 'min_concurrency'], `is above max_concurrency (${max})`);
    for (const [at, entry] of spec.weights.entries())
      if (!spec.image && !entry.to.startsWith('/data/'))
        issue(['weights', String(at), 'to'], 'a bare process gets its weights under /data/');
  });

/** A checked app file with every default filled in; sizes are bytes. */
export type AppSpec = z.output<typeof appSpec>;
export type AppFile = z.input<typeof appSpec>;
export type Machine = z.output<typeof machine>;
export type Health = z.output<typeof health>;

export function ownerOf(app: string): string {
  return app.slice(0, app.indexOf('/'));
}

/** The machine that is asked for first; the rest of an ordered list are fallbacks, which come later. */
export function firstMachine(spec: AppSpec): Machine {
  const first = Array.isArray(spec.machine) ? spec.machine[0] : spec.machine;
  return first ?? { gpus: 0 };
}

/** Fields that are set to something but have no behaviour in this version, so that nobody is misled in silence. */
export function inactiveFields(spec: AppSpec): string[] {
  const usual = health.parse({});
  const later = ['interval', 'failure_threshold', 'start_period', 'call_regularly'] as const;
  const set: [string, boolean][] = [
    ...later.map((name): [string, boolean] => [
      `health.${name}`,
      spec.health[name] !== usual[name],
    ]),
    ['machine (fallbacks after the first)', Array.isArray(spec.machine) && spec.machine.length > 1],
    ['secrets', spec.secrets.length > 0],
    ['retries.retry_config', Object.keys(spec.retries.retry_config).length > 0],
    ['auth', spec.auth !== 'private'],
    ['priority', spec.priority !== 'normal'],
    ['weight', spec.weight !== 1],
    ['labels', Object.keys(spec.labels).length > 0],
    ['caches', spec.caches.length > 0],
    ['expiration', spec.expiration !== undefined],
    ['registry', spec.registry !== undefined],
    ['user_namespace', spec.user_namespace],
  ];
  return set.filter(([, isSet]) => isSet).map(([field]) => field);
}
