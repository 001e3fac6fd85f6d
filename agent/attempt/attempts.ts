// The queued attempts of this agent: from `assign` to the acknowledgement of their result.
//
//   assign ─► refused
//      └────► running ─► finished (outbox) ─► ack ─► forgotten
//                └─ revoke ──────┴─────────────────► forgotten
//
//   T1  Each token is executed at most once here: an assign that is known is answered by what is known.
//   T2  `finished` is sent when a link stands, and again after every welcome, until it is acknowledged (A1).
//   T3  A slot is given back before `finished` is sent: who hears of the end may count on the slot.
import type { Dispatcher } from 'undici';
import type { Chance } from '../../shared/chance.ts';
import { sleep, type Clock } from '../../shared/clock.ts';
import { asFailure, Failure, type FailureCode } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import type { Body, Outcome } from '../../shared/protocol.ts';
import { backoffMs } from '../../shared/backoff.ts';
import type { Fleet } from '../runner/fleet.ts';
import type { Pool } from '../runner/pool.ts';
import type { Link } from '../session/link.ts';
import { callRunner, type CallInput } from './call.ts';
import { cancelAtRunner } from './cancel.ts';
import { openInput, putResult, type CoordinatorHttp } from './coordinator-http.ts';
import type { HeldOutcome, HeldResult, Outbox } from './outbox.ts';

type Assign = Body<'assign'>;

interface RunningAttempt {
  assign: Assign;
  /** Its reason, a Failure, becomes the outcome. */
  stop: AbortController;
  /** The whole input is with the runner, as far as we can know. */
  isBegun: boolean;
  isCancelled: boolean;
}

export interface AttemptsParts {
  clock: Clock;
  chance: Chance;
  log: Log;
  pool: Pool;
  fleet: Fleet;
  outbox: Outbox;
  /** Connections to runners. */
  dispatcher: Dispatcher;
  coordinator: CoordinatorHttp;
  /** Counts ended attempts. */
  ended(outcome: 'response' | 'failed' | 'revoked'): void;
}

const UPLOAD_BACKOFF = { baseMs: 250, capMs: 15_000 };

export class Attempts {
  readonly #parts: AttemptsParts;
  readonly #running = new Map<string, RunningAttempt>();
  /** The link that stands, and what ends with it. */
  #link: { link: Link; over: AbortController } | undefined;
  #isClosing = false;
  #onIdle: (() => void) | undefined;

  constructor(parts: AttemptsParts) {
    this.#parts = parts;
  }

  /** For the hello: running ones, and those whose result waits. */
  known(): Body<'hello'>['attempts'] {
    const running = [...this.#running.keys()].map((token) => ({
      token,
      phase: 'running' as const,
    }));
    const finished = [...this.#parts.outbox.tokens()].map((token) => ({
      token,
      phase: 'finished' as const,
    }));
    return [...running, ...finished];
  }

  get running(): number {
    return this.#running.size;
  }

  linked(link: Link): void {
    const over = new AbortController();
    this.#link = { link, over };
    void this.#resend(link, over.signal);
  }

  unlinked(): void {
    this.#link?.over.abort(new Failure('LINK_LOST', 'the link ended'));
    this.#link = undefined;
  }

  assign(assign: Assign): void {
    const { token } = assign;
    if (this.#running.has(token)) return this.#link?.link.send('started', { token }); // T1
    const held = this.#parts.outbox.get(token);
    if (held) return void this.#deliver(held);
    const { pool, fleet, outbox } = this.#parts;
    if (this.#isClosing) return this.#refuse(token, 'NODE_DRAINING', 'the agent is stopping');
    if (outbox.isFailing)
      return this.#refuse(token, 'DISK_FULL', 'the agent cannot keep results on its disk');
    const taken = pool.take(assign.runnerId, token);
    if (taken.kind === 'refused') return this.#refuse(token, taken.code, taken.reason);
    const runner = fleet.open(assign.runnerId);
    if (!runner) {
      pool.giveBack(assign.runnerId, token);
      return this.#refuse(token, 'RUNNER_GONE', `runner ${assign.runnerId} is not here`);
    }
    const attempt: RunningAttempt = {
      assign,
      stop: new AbortController(),
      isBegun: assign.input.kind === 'inline',
      isCancelled: false,
    };
    this.#running.set(token, attempt);
    this.#link?.link.send('started', { token });
    void this.#run(attempt, runner);
  }

  cancel(token: string): void {
    const attempt = this.#running.get(token);
    if (!attempt || attempt.isCancelled) return;
    attempt.isCancelled = true;
    if (!attempt.isBegun)
      return attempt.stop.abort(new Failure('CLIENT_CANCELLED', 'cancelled before it began'));
    const { assign } = attempt;
    const address = this.#parts.fleet.open(assign.runnerId)?.address;
    if (address)
      void cancelAtRunner({ address, path: assign.path, requestId: assign.requestId }, this.#parts);
  }

  /** Nobody waits for it. */
  revoke(token: string): void {
    const attempt = this.#running.get(token);
    if (attempt) this.#drop(token, attempt);
    attempt?.stop.abort(new Failure('CLIENT_CANCELLED', 'revoked'));
    void this.#forget(token);
  }

  ack(token: string): void {
    void this.#forget(token);
  }

  /** Takes nothing new; after `drainMs` what still runs is broken off, and ends as NODE_DRAINING. */
  async close(drainMs: number): Promise<void> {
    this.#isClosing = true;
    if (this.#running.size === 0) return;
    const idle = new Promise<void>((resolve) => (this.#onIdle = resolve));
    if (drainMs > 0) await Promise.race([idle, sleep(this.#parts.clock, drainMs)]);
    for (const { stop } of this.#running.values())
      stop.abort(new Failure('NODE_DRAINING', 'the agent stopped before the app answered'));
    if (this.#running.size > 0) await Promise.race([idle, sleep(this.#parts.clock, 1_000)]);
  }

  /** Waits until every result is acknowledged, at most `withinMs`. */
  async acknowledged(withinMs: number): Promise<void> {
    const { clock, outbox } = this.#parts;
    const untilMs = clock.elapsed() + withinMs;
    while (this.#link && outbox.size > 0 && clock.elapsed() < untilMs) await sleep(clock, 20);
  }

  async #run(
    attempt: RunningAttempt,
    runner: { address: { host: string; port: number }; gone: AbortSignal },
  ): Promise<void> {
    const { clock, dispatcher, log, outbox } = this.#parts;
    const { assign, stop } = attempt;
    const { token, method, path, headers, timeoutMs } = assign;
    const fromMs = clock.elapsed();
    let outcome: HeldOutcome;
    let inputMs = 0;
    try {
      const input = await this.#input(attempt, runner.gone);
      inputMs = clock.elapsed() - fromMs;
      const bodyPath = outbox.bodyPath(token);
      const call = { ...runner, method, path, headers, timeoutMs, bodyPath, input };
      outcome = await callRunner(call, { clock, dispatcher }, stop.signal);
    } catch (thrown) {
      const { code, message } = stop.signal.aborted
        ? asFailure(stop.signal.reason)
        : asFailure(thrown);
      outcome = { kind: 'failed', code, message };
    }
    const durationMs = clock.elapsed() - fromMs;
    log.event('attempt.finished', {
      request: assign.requestId,
      number: assign.number,
      runner: assign.runnerId,
      ...(outcome.kind === 'response' ? { status: outcome.status } : { code: outcome.code }),
      phases: { inputMs: round(inputMs), callMs: round(durationMs - inputMs) },
    });
    const isRevoked = this.#running.get(token) !== attempt;
    this.#parts.ended(isRevoked ? 'revoked' : outcome.kind);
    if (isRevoked) return outbox.discard(outcome);
    const told = bounded(outcome);
    if (told !== outcome) void outbox.discard(outcome);
    const result = { token, outcome: told, durationMs };
    // In the outbox before it leaves the running ones: a hello between must name it.
    const durable = outbox.add(result);
    this.#drop(token, attempt); // T3
    void this.#deliver(result);
    await durable;
  }

  async #input(attempt: RunningAttempt, gone: AbortSignal): Promise<CallInput> {
    const { input, token } = attempt.assign;
    if (input.kind === 'inline') return { kind: 'inline', bytes: input.bytes };
    const signal = AbortSignal.any([attempt.stop.signal, gone]);
    const stream = await openInput(this.#parts.coordinator, token, input, signal);
    stream.once('end', () => (attempt.isBegun = true));
    return { kind: 'stream', stream, sizeBytes: input.sizeBytes };
  }

  #drop(token: string, attempt: RunningAttempt): void {
    this.#running.delete(token);
    this.#parts.pool.giveBack(attempt.assign.runnerId, token);
    if (this.#running.size === 0) this.#onIdle?.();
  }

  async #forget(token: string): Promise<void> {
    await this.#parts.outbox.forget(token).catch((thrown: unknown) =>
      this.#parts.log.error('an acknowledged result cannot be removed from disk', {
        reason: asFailure(thrown).message,
      }),
    );
  }

  async #resend(link: Link, over: AbortSignal): Promise<void> {
    for (const token of [...this.#parts.outbox.tokens()]) {
      await link.drained();
      if (over.aborted) return;
      const held = this.#parts.outbox.get(token);
      if (held) void this.#deliver(held);
    }
  }

  /** Sends a result over the link that stands, its large body first; nothing happens while there is none (T2). */
  async #deliver({ token, outcome, durationMs }: HeldResult): Promise<void> {
    const standing = this.#link;
    if (!standing) return;
    const finish = (outcome: Outcome): void =>
      standing.link.send('finished', { token, outcome, durationMs });
    if (outcome.kind === 'failed') return finish(outcome);
    const { body } = outcome;
    if (body.kind === 'inline') return finish({ ...outcome, body });
    const { signal } = standing.over;
    for (let tries = 0; !signal.aborted && this.#parts.outbox.get(token); tries += 1) {
      const upload = await putResult(this.#parts.coordinator, token, body, signal);
      if (upload.kind === 'stored') {
        const { digest, sizeBytes } = body;
        return finish({ ...outcome, body: { kind: 'payload', digest, sizeBytes } });
      }
      if (upload.kind === 'unwanted') return this.#forget(token);
      const { code, message } = upload.failure;
      if (code === 'RUNNER_RESPONSE_TOO_LARGE') return finish({ kind: 'failed', code, message });
      // Once may be a fault on the way; again, and it is our copy that has changed.
      if (code === 'DIGEST_MISMATCH' && tries > 0)
        return finish({
          ...{ kind: 'failed', code: 'RUNNER_INCOMPLETE' },
          message: "the result has changed on the agent's disk",
        });
      if (signal.aborted) return;
      this.#parts.log.warn('a result could not be handed over; trying again', {
        code,
        reason: message,
      });
      const waitMs = backoffMs(UPLOAD_BACKOFF, tries, this.#parts.chance, 'result upload');
      await sleep(this.#parts.clock, waitMs, signal).catch(() => undefined);
    }
  }

  #refuse(token: string, code: FailureCode, message: string): void {
    this.#link?.link.send('refused', { token, failure: { code, message } });
  }
}

/** An outcome that its message can hold. */
function bounded(outcome: HeldOutcome): HeldOutcome {
  if (outcome.kind === 'failed') return { ...outcome, message: outcome.message.slice(0, 4096) };
  const sizeBytes = outcome.headers.reduce(
    (sum, [name, value]) => sum + name.length + value.length,
    0,
  );
  if (sizeBytes <= limits.headerBytes && outcome.headers.length <= 512) return outcome;
  const message = `the response headers of the app are over ${limits.headerBytes} bytes`;
  return { kind: 'failed', code: 'RUNNER_RESPONSE_TOO_LARGE', message };
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
