// Results that the coordinator has not acknowledged. A result may be sent as soon as it is here in memory; the copy on
// disk is for the case that this agent dies before the acknowledgement comes.
//   A1  A result is forgotten only after its acknowledgement (or when the coordinator revokes the attempt).
//   O1  The record is what counts: a body without one is removed at the start, a record is renamed into place last.
//   O2  A disk that refuses loses nothing: the result stays in memory, the write is tried again, and no new attempt is
//       begun until it works (`isFailing`).
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { backoffMs } from '../../shared/backoff.ts';
import type { Chance } from '../../shared/chance.ts';
import { sleep, type Clock } from '../../shared/clock.ts';
import { digestOf, isDigest, type Digest } from '../../shared/digest.ts';
import { asFailure, isFailureCode, type FailureCode } from '../../shared/failure.ts';
import type { Log } from '../../shared/log.ts';
import type { Headers } from '../../shared/protocol.ts';
import { writeDurably } from '../../shared/durable-file.ts';

export type HeldBody =
  | { kind: 'inline'; bytes: Uint8Array<ArrayBuffer> }
  /** A file of the outbox. */
  | { kind: 'file'; path: string; digest: Digest; sizeBytes: number };

export type HeldOutcome =
  | { kind: 'response'; status: number; headers: Headers; body: HeldBody }
  | { kind: 'failed'; code: FailureCode; message: string };

export interface HeldResult {
  token: string;
  outcome: HeldOutcome;
  durationMs: number;
}

const FORMAT = 1;
const digest = z.string().refine((value): value is Digest => isDigest(value));
const record = z.object({
  format: z.literal(FORMAT),
  token: z.string(),
  durationMs: z.number(),
  outcome: z.discriminatedUnion('kind', [
    z.object({
      kind: z.literal('response'),
      status: z.number(),
      headers: z.array(z.tuple([z.string(), z.string()])),
      body: z.discriminatedUnion('kind', [
        z.object({ kind: z.literal('inline'), base64: z.string() }),
        z.object({ kind: z.literal('file'), digest, sizeBytes: z.number() }),
      ]),
    }),
    z.object({
      kind: z.literal('failed'),
      code: z.string().transform((text): FailureCode => (isFailureCode(text) ? text : 'INTERNAL')),
      message: z.string(),
    }),
  ]),
});

/**
 * The coordinator mostly acknowledges sooner: then the disk is not touched at all. An agent that dies before costs what
 * it would have cost this much earlier: the attempt runs again.
 */
const WRITE_AFTER_MS = 250;
const BACKOFF = { baseMs: 500, capMs: 30_000 };

export interface OutboxParts {
  folder: string;
  clock: Clock;
  chance: Chance;
  log: Log;
}

export class Outbox {
  readonly #parts: OutboxParts;
  readonly #held = new Map<string, HeldResult>();
  readonly #closing = new AbortController();
  /** Tokens whose record is on disk, or on its way there. */
  readonly #written = new Set<string>();
  readonly #busy = new Set<Promise<void>>();
  #failing = 0;

  private constructor(parts: OutboxParts) {
    this.#parts = parts;
  }

  /** Reads back what an earlier life of the agent did not get rid of. */
  static async open(parts: OutboxParts): Promise<Outbox> {
    const outbox = new Outbox(parts);
    await mkdir(parts.folder, { recursive: true, mode: 0o700 });
    const names = new Set(await readdir(parts.folder));
    for (const name of names) {
      const isRecord = name.endsWith('.json');
      if (isRecord) await outbox.#load(name);
      else if (!name.endsWith('.unreadable') && !isBodyOf(name, names))
        await rm(join(parts.folder, name), { force: true }); // O1
    }
    return outbox;
  }

  /** Where the body of a large result may be written before `add`. */
  bodyPath(token: string): string {
    return join(this.#parts.folder, `${nameOf(token)}.body`);
  }

  get isFailing(): boolean {
    return this.#failing > 0;
  }

  get size(): number {
    return this.#held.size;
  }

  tokens(): IterableIterator<string> {
    return this.#held.keys();
  }

  get(token: string): HeldResult | undefined {
    return this.#held.get(token);
  }

  /** Holds the result from now on; resolves when it is durable, forgotten meanwhile, or the outbox closes. */
  add(result: HeldResult): Promise<void> {
    if (this.#held.has(result.token)) return Promise.resolve();
    this.#held.set(result.token, result);
    return this.#counted(this.#keep(result));
  }

  /** A1: only after the acknowledgement, or a revoke. */
  async forget(token: string): Promise<void> {
    const result = this.#held.get(token);
    if (result && this.#held.delete(token)) await this.#counted(this.#remove(result));
  }

  /** Removes the body of an outcome that will not be held. */
  async discard(outcome: HeldOutcome): Promise<void> {
    if (outcome.kind !== 'response' || outcome.body.kind !== 'file') return;
    // What stays behind is removed at the next start (O1).
    await rm(outcome.body.path, { force: true }).catch(() => undefined);
  }

  /** Resolves when nothing is being written any more: the folder may have another owner then. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the outbox is closed'));
    await Promise.allSettled(this.#busy);
  }

  #counted(work: Promise<void>): Promise<void> {
    this.#busy.add(work);
    const over = (): void => void this.#busy.delete(work);
    work.then(over, over);
    return work;
  }

  async #keep(result: HeldResult): Promise<void> {
    const { token } = result;
    const { clock, chance, log } = this.#parts;
    const { signal } = this.#closing;
    let waitMs = WRITE_AFTER_MS;
    let isFailing = false;
    let wasTried = false;
    for (let tries = 0; ; tries += 1) {
      await sleep(clock, waitMs, signal).catch(() => undefined);
      if (this.#held.get(token) !== result) break;
      wasTried = true;
      try {
        this.#written.add(token);
        await this.#write(result);
        break;
      } catch (thrown) {
        log.error('a result cannot be kept on disk; it stays in memory and no new work is taken', {
          reason: asFailure(thrown).message,
        });
        if (!isFailing) this.#failing += 1; // O2
        isFailing = true;
        if (signal.aborted) break;
        waitMs = backoffMs(BACKOFF, tries, chance, 'outbox write');
      }
    }
    if (isFailing) this.#failing -= 1;
    if (this.#held.has(token) || !wasTried) return;
    // Acknowledged while it was being written: the removal then may have come before the rename.
    this.#written.add(token);
    await this.#remove(result);
  }

  async #write({ token, durationMs, outcome }: HeldResult): Promise<void> {
    const written =
      outcome.kind === 'failed'
        ? outcome
        : {
            ...outcome,
            body:
              outcome.body.kind === 'inline'
                ? { kind: 'inline', base64: Buffer.from(outcome.body.bytes).toString('base64') }
                : { kind: 'file', digest: outcome.body.digest, sizeBytes: outcome.body.sizeBytes },
          };
    if (outcome.kind === 'response' && outcome.body.kind === 'file') {
      const body = await open(outcome.body.path, 'r');
      try {
        await body.sync();
      } finally {
        await body.close();
      }
    }
    const text = JSON.stringify({ format: FORMAT, token, durationMs, outcome: written });
    await writeDurably(this.#recordPath(token), text);
  }

  async #remove({ token, outcome }: HeldResult): Promise<void> {
    // The record first: a body alone is rubbish, a record alone would be a lie (O1).
    if (this.#written.delete(token)) await rm(this.#recordPath(token), { force: true });
    if (outcome.kind === 'response' && outcome.body.kind === 'file')
      await rm(outcome.body.path, { force: true });
  }

  async #load(name: string): Promise<void> {
    const path = join(this.#parts.folder, name);
    try {
      const { token, durationMs, outcome } = record.parse(JSON.parse(await readFile(path, 'utf8')));
      if (outcome.kind === 'failed') {
        this.#written.add(token);
        this.#held.set(token, { token, durationMs, outcome });
        return;
      }
      const { body, ...head } = outcome;
      const held: HeldBody =
        body.kind === 'inline'
          ? { kind: 'inline', bytes: Buffer.from(body.base64, 'base64') }
          : { ...body, path: this.bodyPath(token) };
      if (held.kind === 'file' && (await stat(held.path)).size !== held.sizeBytes)
        throw new Error('its body is not whole');
      this.#written.add(token);
      this.#held.set(token, { token, durationMs, outcome: { ...head, body: held } });
    } catch (thrown) {
      // The attempt is then not in our hello, so the coordinator runs it again.
      this.#parts.log.error('a kept result is unreadable; it is set aside', {
        file: name,
        reason: asFailure(thrown).message,
      });
      await rename(path, `${path}.unreadable`);
    }
  }

  #recordPath(token: string): string {
    return join(this.#parts.folder, `${nameOf(token)}.json`);
  }
}

function isBodyOf(name: string, names: ReadonlySet<string>): boolean {
  return name.endsWith('.body') && names.has(name.replace(/\.body$/, '.json'));
}

/** A file name for any token: the text itself is the sender's choice. */
function nameOf(token: string): string {
  return digestOf(token).slice('sha256:'.length);
}
