// What /v1 answers, as schemas: the shapes of core/query.ts and of requests for programs. They document (OpenAPI) and
// are checked in tests; answers are not filtered through them on the way out.
import { z } from 'zod';
import { limits } from '../../shared/limits.ts';
import { runnerStates } from '../../shared/runner-state.ts';

const wallMs = z.number().describe('milliseconds since 1970 UTC');
const count = z.number().int().nonnegative();
const failure = z.object({ code: z.string(), message: z.string() });

export const waitReason = z.object({
  code: z.string().describe('why it waits, for programs'),
  text: z.string().describe('why it waits, for people'),
  until: wallMs.optional().describe('when that changes by itself'),
});

export const runnerView = z.object({
  id: z.string(),
  app: z.string(),
  revision: z.string(),
  node: z.object({ id: z.string(), name: z.string() }).optional(),
  state: z.enum(runnerStates),
  reason: z.string().optional(),
  progress: z
    .object({ what: z.string(), doneBytes: count, totalBytes: count.optional() })
    .optional(),
  slots: count,
  inFlight: count,
  requests: z.array(z.string()),
  gpus: z.array(z.string()),
  states: z.array(z.object({ state: z.enum(runnerStates), at: wallMs })),
  failure: failure.optional(),
  expiresInSeconds: z.number().optional(),
});

export const appView = z.object({
  app: z.string(),
  revision: z.string(),
  revisionNumber: count,
  spec: z.looseObject({}).describe('the app file with every default filled in, sizes in bytes'),
  imageDigest: z.string().optional(),
  inactive: z.array(z.string()).describe('fields that are set but do nothing in this version'),
  queued: count,
  inFlight: count,
  runners: count,
  wanted: count,
  createdAt: wallMs,
  updatedAt: wallMs,
  waiting: waitReason.optional(),
  failures: count,
});

export const revisionView = z.object({
  app: z.string(),
  revision: z.string(),
  number: count,
  spec: z.looseObject({}),
  imageDigest: z.string().optional(),
  createdAt: wallMs,
});

export const nodeView = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(['ready', 'suspect', 'lost', 'away']),
  version: z.string().optional(),
  advertise: z.string().optional(),
  unreachable: z.string().optional(),
  labels: z.record(z.string(), z.string()),
  gpus: z.looseObject({ kind: z.enum(['none', 'gpus', 'no_answer']) }).optional(),
  gpusFree: count,
  cpu: z.object({ total: z.number(), free: z.number() }),
  memoryBytes: z.object({ total: z.number(), free: z.number() }),
  drivers: z.array(z.object({ name: z.string(), unavailable: z.string().optional() })),
  images: z.array(z.string()),
  runners: count,
  host: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  lastSeenAt: wallMs,
});

export const requestView = z.object({
  id: z.string(),
  app: z.string(),
  revision: z.string(),
  status: z.enum(['IN_QUEUE', 'IN_PROGRESS', 'COMPLETED']),
  state: z.enum(['ready', 'waiting', 'flight', 'done']),
  method: z.string(),
  path: z.string(),
  priority: z.enum(['normal', 'low']),
  submittedAt: wallMs,
  startedAt: wallMs.optional(),
  endedAt: wallMs.optional(),
  durationMs: z.number().optional().describe('time on the runner'),
  attempts: count.describe('attempts that counted'),
  dispatches: count,
  cancelRequestedAt: wallMs.optional(),
  notBefore: wallMs.optional().describe('when the next attempt is due'),
  position: count.optional().describe('requests ahead'),
  waiting: waitReason.optional(),
  runnerId: z.string().optional(),
  nodeId: z.string().optional(),
  httpStatus: z.number().int().optional(),
  failure: failure.optional(),
  lastFailure: failure.extend({ at: wallMs }).optional(),
  inputBytes: count,
  outputBytes: count.optional(),
});

export const deployed = z.object({
  app: z.string(),
  revision: z.string(),
  number: count,
  imageDigest: z.string().optional(),
  inactive: z.array(z.string()),
  warnings: z.array(z.string()),
});

export const errorView = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    field: z.string().optional(),
    doc: z.string(),
  }),
});

export const listOf = <T extends z.ZodType>(item: T) => z.object({ items: z.array(item) });

/** `true`, `1` or the bare word switch on. */
export const flag = z
  .enum(['true', '1', '', 'false', '0'])
  .default('false')
  .transform((text) => text === 'true' || text === '1' || text === '');

export const limitParameter = z.coerce.number().int().min(1).max(limits.pageItems).default(100);
