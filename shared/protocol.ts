// THE table of messages between coordinator and agents: who sends it, since which protocol version, and its body.
// Everything else derives from it: types, checks, handlers, the golden text. Within a version only optional
// fields may be added; unknown fields are dropped, an unknown message is answered by nothing and logged.
// Every message is idempotent, and every reconnect begins with a full-state hello (DESIGN §9).
import { z } from 'zod';
import { isDigest, type Digest } from './digest.ts';
import { Failure, isFailureCode, type FailureCode } from './failure.ts';
import {
  isRequestId,
  isShortId,
  type NodeId,
  type RequestId,
  type RevisionId,
  type RunnerId,
} from './ids.ts';
import { limits } from './limits.ts';
import { runnerStates } from './runner-state.ts';

/** The versions that this build speaks. */
export const protocolRange = { min: 1, max: 1 } as const;

const text = (max: number) => z.string().max(max);
const name = text(256);
const whole = z.number().int().nonnegative();
const bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array, 'expected bytes');
const digest = z.string().refine((value): value is Digest => isDigest(value));
const requestId = z.string().refine((value): value is RequestId => isRequestId(value));
const runnerId = z.string().refine((value): value is RunnerId => isShortId(value));
const nodeId = z.string().refine((value): value is NodeId => isShortId(value));
const revisionId = z.string().refine((value): value is RevisionId => isShortId(value));
const code = z
  .string()
  .max(64)
  .transform((value): FailureCode => (isFailureCode(value) ? value : 'INTERNAL'));
const token = text(512);
const range = z.object({ min: whole, max: whole });
const failure = z.object({ code, message: text(4096) });

const headers = z.array(z.tuple([text(1024), text(limits.headerBytes)])).max(512);
/** Bytes inside the message, or a payload file that is fetched or was stored over HTTP. */
const body = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('inline'),
    bytes: bytes.refine((value) => value.byteLength <= limits.inlineBytes),
  }),
  z.object({ kind: z.literal('payload'), digest, sizeBytes: whole }),
]);

const gpu = z.object({
  uuid: text(128),
  index: whole,
  minor: whole.exactOptional(),
  name: text(256),
  memoryBytes: whole,
  memoryUsedBytes: whole.exactOptional(),
  /** Cut into MIG devices: cannot be handed out whole. */
  mig: z.boolean(),
});
const gpus = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('none') }),
  z.object({
    kind: z.literal('gpus'),
    driverVersion: name.exactOptional(),
    cudaVersion: name.exactOptional(),
    gpus: z.array(gpu).max(64),
  }),
  z.object({ kind: z.literal('no_answer'), reason: text(1024), sinceMs: whole }),
]);

const progress = z.object({
  /** What is being done, for people: `layer 2 of 5`, `weights`. */
  what: name,
  doneBytes: whole,
  totalBytes: whole.exactOptional(),
});

const exit = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('code'), code: z.number().int() }),
  z.object({ kind: z.literal('signal'), signal: text(32) }),
  z.object({ kind: z.literal('oom') }),
  z.object({ kind: z.literal('unknown') }),
]);

const runnerReport = z.object({
  runnerId,
  app: name,
  revision: revisionId,
  state: z.enum(runnerStates),
  /** Concurrent requests that it takes. */
  slots: whole.max(10_000),
  gpus: z.array(text(128)).max(limits.gpusPerRunner),
  cpu: z.number().nonnegative().exactOptional(),
  memoryBytes: whole.exactOptional(),
  progress: progress.exactOptional(),
  /** Why it ends or ended, when not as it was told to. */
  failure: failure.exactOptional(),
  exit: exit.exactOptional(),
});

const outcome = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('response'),
    status: z.number().int().min(100).max(999),
    headers,
    body,
  }),
  z.object({ kind: z.literal('failed'), code, message: text(4096) }),
]);

const source = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('image'),
    ref: text(1024),
    digest,
    command: z.array(text(65_536)).max(1024).exactOptional(),
  }),
  z.object({
    kind: z.literal('process'),
    digest,
    sizeBytes: whole,
    grant: token,
    command: z.array(text(65_536)).max(1024),
  }),
]);

export const messages = {
  challenge: {
    from: 'coordinator',
    since: 1,
    doc: 'First message of a link: the versions spoken, and what the agent must prove.',
    body: z.object({ nonce: text(128), protocol: range, auth: z.enum(['none', 'token']) }),
  },
  hello: {
    from: 'agent',
    since: 1,
    doc: 'The full state of the agent: who it is, what it has, what runs, what waits in its outbox.',
    body: z.object({
      protocol: range,
      nodeId,
      /** Rises at every start of the agent: of two with one id, the higher wins. */
      incarnation: whole,
      name,
      version: name,
      nonce: text(128),
      proof: text(128).exactOptional(),
      /** `host:port` of the agent's HTTP; absent: it cannot be dialled and takes queued work only. */
      advertise: text(300).exactOptional(),
      labels: z.record(text(128), name),
      resources: z.object({ cpu: z.number().nonnegative(), memoryBytes: whole }),
      host: z.record(text(64), z.union([text(256), z.number(), z.boolean()])),
      gpus,
      drivers: z
        .array(z.object({ name: text(32), unavailable: text(1024).exactOptional() }))
        .max(16),
      runners: z.array(runnerReport).max(limits.runnersPerNode),
      /** Tokens of attempts that run, or whose result waits for its ack. */
      attempts: z.array(z.object({ token, phase: z.enum(['running', 'finished']) })).max(100_000),
      /** Images whose layers are unpacked here. */
      images: z.array(digest).max(10_000),
    }),
  },
  welcome: {
    from: 'coordinator',
    since: 1,
    doc: 'The link stands. Attempts and runners that are not named live on; named ones must end.',
    body: z.object({
      protocol: whole,
      proof: text(128).exactOptional(),
      heartbeatMs: whole,
      /** Silence after which the other side counts as lost. */
      lostMs: whole,
      /** Key of the lease tokens for direct calls over this link. */
      leaseKey: bytes,
      revoke: z.array(token).max(100_000),
      stop: z.array(runnerId).max(limits.runnersPerNode),
    }),
  },
  goodbye: {
    from: 'both',
    since: 1,
    doc: 'Says why the link is closed next.',
    body: failure,
  },
  heartbeat: {
    from: 'both',
    since: 1,
    doc: 'Sent by each side every heartbeatMs, echoing the last number heard, so that a one-way break is seen.',
    body: z.object({ sequence: whole, echo: whole }),
  },
  startRunner: {
    from: 'coordinator',
    since: 1,
    doc: 'Start this runner, unless it is there already.',
    body: z.object({
      runnerId,
      app: name,
      revision: revisionId,
      source,
      port: whole.max(65_535),
      env: z.record(name, text(131_072)),
      gpus: z.object({
        count: whole.max(limits.gpusPerRunner),
        name: name.exactOptional(),
        vramBytes: whole.exactOptional(),
      }),
      cpu: z.number().nonnegative().exactOptional(),
      memoryBytes: whole.exactOptional(),
      weights: z
        .array(z.object({ from: text(4096), sha256: text(64).exactOptional(), to: text(1024) }))
        .max(limits.appWeights),
      health: z.object({ path: text(1024), method: z.enum(['GET', 'POST']), timeoutMs: whole }),
      slots: whole.max(10_000),
      startupTimeoutMs: whole,
      graceMs: whole,
    }),
  },
  stopRunner: {
    from: 'coordinator',
    since: 1,
    doc: 'drain: finish what runs, then stop. stop: SIGTERM, grace, SIGKILL. kill: SIGKILL.',
    body: z.object({ runnerId, how: z.enum(['drain', 'stop', 'kill']) }),
  },
  runner: {
    from: 'agent',
    since: 1,
    doc: 'What became of a runner; sent at each change and at most twice a second for progress.',
    body: runnerReport,
  },
  images: {
    from: 'agent',
    since: 1,
    doc: 'Images that came into or left the cache.',
    body: z.object({ added: z.array(digest).max(10_000), removed: z.array(digest).max(10_000) }),
  },
  gpus: {
    from: 'agent',
    since: 1,
    doc: 'The GPUs changed, or stopped answering.',
    body: gpus,
  },
  assign: {
    from: 'coordinator',
    since: 1,
    doc: 'Execute this attempt on this runner.',
    body: z.object({
      token,
      requestId,
      number: whole,
      runnerId,
      method: text(16),
      /** Path and query at the runner. */
      path: text(limits.pathBytes),
      headers,
      input: body,
      timeoutMs: whole,
    }),
  },
  started: {
    from: 'agent',
    since: 1,
    doc: 'The attempt holds a slot and the call begins: from here it counts (Q5).',
    body: z.object({ token }),
  },
  refused: {
    from: 'agent',
    since: 1,
    doc: 'The attempt was not begun: place it elsewhere.',
    body: z.object({ token, failure }),
  },
  cancel: {
    from: 'coordinator',
    since: 1,
    doc: "Call {path}/cancel on the attempt's runner; the attempt ends as the app answers.",
    body: z.object({ token }),
  },
  revoke: {
    from: 'coordinator',
    since: 1,
    doc: 'Nobody waits for this attempt: break it off and forget it.',
    body: z.object({ token }),
  },
  finished: {
    from: 'agent',
    since: 1,
    doc: 'The attempt ended; repeated until acknowledged (A1).',
    body: z.object({ token, outcome, durationMs: z.number().nonnegative() }),
  },
  ack: {
    from: 'coordinator',
    since: 1,
    doc: 'The result is durable here: forget it.',
    body: z.object({ token }),
  },
  readLog: {
    from: 'coordinator',
    since: 1,
    doc: 'Read output of a runner from an offset.',
    body: z.object({
      readId: text(64),
      runnerId,
      offset: whole,
      maxBytes: whole.max(limits.logReadBytes),
    }),
  },
  log: {
    from: 'agent',
    since: 1,
    doc: 'The answer to readLog. `gone`: the runner and its log are not there any more.',
    body: z.object({
      readId: text(64),
      offset: whole,
      bytes,
      end: whole,
      gone: z.boolean(),
      ended: z.boolean(),
    }),
  },
} as const satisfies Record<
  string,
  { from: 'agent' | 'coordinator' | 'both'; since: number; doc: string; body: z.ZodType }
>;

export type MessageName = keyof typeof messages;
export type Body<N extends MessageName> = z.output<(typeof messages)[N]['body']>;

type SenderOf<N extends MessageName> = (typeof messages)[N]['from'];
export type Side = 'agent' | 'coordinator';
/** Names of the messages that `S` may send. */
export type SentBy<S extends Side> = {
  [N in MessageName]: SenderOf<N> extends S | 'both' ? N : never;
}[MessageName];
/** A message that `S` may send, as a union over the names. */
export type Message<S extends Side> = { [N in SentBy<S>]: { name: N; body: Body<N> } }[SentBy<S>];

export type RunnerReport = Body<'runner'>;
export type GpuReport = Body<'gpus'>;
export type Outcome = Body<'finished'>['outcome'];
export type BodyRef = Body<'assign'>['input'];
export type Headers = Body<'assign'>['headers'];

/**
 * A decoded frame as a checked message of `sender`. An unknown name gives undefined: a newer peer may send it, and it
 * is ignored.
 *
 * @throws Failure FRAME_INVALID naming the field
 */
export function checkMessage(
  sender: 'agent',
  messageName: string,
  messageBody: unknown,
): Message<'agent'> | undefined;
export function checkMessage(
  sender: 'coordinator',
  messageName: string,
  messageBody: unknown,
): Message<'coordinator'> | undefined;
export function checkMessage(
  sender: Side,
  messageName: string,
  messageBody: unknown,
): Message<Side> | undefined {
  if (!Object.hasOwn(messages, messageName)) return undefined;
  const row = messages[messageName as MessageName];
  if (row.from !== 'both' && row.from !== sender)
    throw new Failure('FRAME_INVALID', `message ${messageName} is not for the ${sender} to send`);
  const result = row.body.safeParse(messageBody);
  if (!result.success) {
    const issue = result.error.issues[0];
    const where = [messageName, ...(issue?.path ?? [])].join('.');
    throw new Failure('FRAME_INVALID', `${where}: ${issue?.message ?? 'is malformed'}`, {
      detail: { field: where },
    });
  }
  return { name: messageName, body: result.data } as Message<Side>;
}

/** The highest version that both ranges hold, or undefined. */
export function commonVersion(
  a: { min: number; max: number },
  b: { min: number; max: number },
): number | undefined {
  const version = Math.min(a.max, b.max);
  return version >= Math.max(a.min, b.min) ? version : undefined;
}
