// The life of one runner on this node, from the order to the last free byte.
//
//   PENDING ─► DOCKER_PULL ─► SETUP ─► IDLE ◄─► RUNNING ─► DRAINING ─► TERMINATING ─► TERMINATED
//   image, folder, weights    start,   slots are open      no new      SIGTERM,       everything
//   (only what must come      health                       leases      grace, KILL    is freed
//   from elsewhere)
//
//   W1  Whatever a stage made is undone in reverse, however the life ends, before TERMINATED is said: who hears of it
//       may count on the room.
//   W2  A stop asked for wins over every stage; asking harder (drain < stop < kill) wins over what is under way.
//   W3  Each state is reported once, in the order of shared/runner-state.ts.
//
// `startup_timeout` runs from SETUP: how long a pull takes is the node's affair, not the app's.
import assert from 'node:assert/strict';
import { deadline, sleep } from '../../shared/clock.ts';
import { asFailure, Failure } from '../../shared/failure.ts';
import type { RunnerId } from '../../shared/ids.ts';
import type { Body, RunnerReport } from '../../shared/protocol.ts';
import { mayFollow, type RunnerState } from '../../shared/runner-state.ts';
import type { Exit, GrantedGpu, LogSlice, Running, RunnerSpec } from './driver.ts';
import { untilHealthy, type HealthWatch } from './health.ts';
import type { LifeParts } from './life-parts.ts';
import type { Progress } from './materials.ts';
import { ProgressReports } from './progress-reports.ts';

export type StartOrder = Body<'startRunner'>;
export type StopHow = Body<'stopRunner'>['how'];

/** How long a process may outlive SIGKILL (uninterruptible in the kernel) before it is written off. */
const AFTER_KILL_MS = 10_000;

type Undo = (() => Promise<void>)[];

type Phase =
  | { at: 'preparing' }
  | { at: 'started'; running: Running }
  | { at: 'ended'; failure: Failure | undefined; exit: Exit | undefined };

/** What ended the life, before it is cleaned up. */
interface Ending {
  failure?: Failure;
  exit?: Exit;
}

export class Life {
  readonly id: RunnerId;
  readonly order: StartOrder;
  /** Aborts with the failure for open calls, once the runner's process is gone. */
  readonly gone = new AbortController();
  readonly ended: Promise<void>;
  readonly #parts: LifeParts;
  readonly #gpus: readonly GrantedGpu[];
  readonly #drainAsked = new AbortController();
  readonly #stopAsked = new AbortController();
  readonly #killAsked = new AbortController();
  readonly #progress: ProgressReports;
  readonly #phases: Record<string, number> = {};
  #phase: Phase = { at: 'preparing' };
  /** Why it ends, from the moment that is known: a start that failed is told with TERMINATING already. */
  #failing: Failure | undefined;
  #state: RunnerState = 'PENDING';
  #stateSinceMs: number;

  /** `release` gives back what was reserved for it; called before TERMINATED is said (W1). */
  constructor(
    order: StartOrder,
    gpus: readonly GrantedGpu[],
    parts: LifeParts,
    release: () => void,
  ) {
    this.id = order.runnerId;
    this.order = order;
    this.#gpus = gpus;
    this.#parts = parts;
    this.#stateSinceMs = parts.clock.elapsed();
    this.#progress = new ProgressReports(parts.clock, () => this.#say());
    this.#say();
    this.ended = this.#live(release);
  }

  stop(how: StopHow): void {
    const reason = new Failure('RUNNER_GONE', 'the runner was told to stop');
    if (how === 'kill') this.#killAsked.abort(reason);
    if (how !== 'drain') this.#stopAsked.abort(reason);
    this.#drainAsked.abort(reason);
  }

  get state(): RunnerState {
    return this.#state;
  }

  /** What to dial; undefined while nothing listens there for sure. */
  get address(): { host: string; port: number } | undefined {
    return this.#phase.at === 'started' ? this.#phase.running.address : undefined;
  }

  report(): RunnerReport {
    const { app, revision, slots, cpu, memoryBytes } = this.order;
    const progress = this.#state === 'DOCKER_PULL' ? this.#progress.latest : undefined;
    const phase = this.#phase;
    const failure = phase.at === 'ended' ? phase.failure : this.#failing;
    const exit = phase.at === 'ended' ? phase.exit : undefined;
    return {
      runnerId: this.id,
      app,
      revision,
      state: this.#state,
      slots,
      gpus: this.#gpus.map(({ uuid }) => uuid),
      ...(cpu === undefined ? {} : { cpu }),
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      ...(progress === undefined ? {} : { progress }),
      ...(failure === undefined
        ? {}
        : { failure: { code: failure.code, message: failure.message.slice(0, 4096) } }),
      ...(exit === undefined ? {} : { exit }),
    };
  }

  /** IDLE and RUNNING follow the slots in use. */
  used(isUsed: boolean): void {
    if (isUsed && this.#state === 'IDLE') this.#enter('RUNNING');
    if (!isUsed && this.#state === 'RUNNING') this.#enter('IDLE');
  }

  /** Output so far; undefined when there is nothing to read from any more. */
  readLog(offset: number, maxBytes: number): Promise<LogSlice> | undefined {
    if (this.#phase.at === 'started') return this.#phase.running.readLog(offset, maxBytes);
    if (this.#phase.at === 'ended') return undefined;
    return Promise.resolve({ offset: 0, bytes: new Uint8Array(0), end: 0 });
  }

  async #live(release: () => void): Promise<void> {
    const undo: Undo = [async () => release()];
    let ending: Ending;
    try {
      const spec = await this.#prepare(undo);
      const running = await this.#setUp(spec, undo);
      ending = await this.#serve(running);
    } catch (thrown) {
      ending = this.#endingOf(thrown);
    }
    this.#failing = ending.failure;
    for (const step of undo.reverse()) {
      // One thing that cannot be freed must not keep the others (W1).
      await step().catch((thrown: unknown) =>
        this.#parts.log.error('a stage of a runner could not be undone', {
          runner: this.id,
          reason: asFailure(thrown).message,
        }),
      );
    }
    const failure = ending.failure && (await this.#withOutput(ending.failure));
    this.#phase = { at: 'ended', failure, exit: ending.exit };
    this.#enter('TERMINATED');
    this.#parts.log.event('runner.ended', {
      runner: this.id,
      app: this.order.app,
      ...(failure ? { code: failure.code, reason: failure.message } : {}),
      ...(ending.exit ? { exit: ending.exit } : {}),
      phases: this.#phases,
    });
  }

  /** Fetches what the runner is made of; only what comes from elsewhere shows as DOCKER_PULL. */
  async #prepare(undo: Undo): Promise<RunnerSpec> {
    const { order } = this;
    const { materials, driver } = this.#parts;
    const why = await driver.unavailable();
    if (why !== undefined) throw new Failure('DRIVER_UNAVAILABLE', why);
    const stopped = this.#drainAsked.signal; // W2
    undo.push(async () => this.#progress.close());
    const onProgress = (progress: Progress): void => {
      if (this.#state === 'PENDING') this.#enter('DOCKER_PULL');
      if (this.#state === 'DOCKER_PULL') this.#progress.add(progress);
    };
    if (!(await materials.isCached(order.source, stopped))) this.#enter('DOCKER_PULL');
    stopped.throwIfAborted();
    const source = await materials.source(order, onProgress, stopped);
    undo.push(() => source.release());
    const weights = await materials.weights(order, onProgress, stopped);
    undo.push(() => weights.release());
    return {
      id: this.id,
      app: order.app,
      source: source.value,
      port: order.port,
      env: environmentOf(order),
      gpus: this.#gpus,
      ...(order.cpu === undefined ? {} : { cpu: order.cpu }),
      ...(order.memoryBytes === undefined ? {} : { memoryBytes: order.memoryBytes }),
      files: weights.value,
    };
  }

  /** Starts the process and waits until it is healthy, within the startup timeout. */
  async #setUp(spec: RunnerSpec, undo: Undo): Promise<Running> {
    const { driver, clock } = this.#parts;
    this.#enter('SETUP');
    const { startupTimeoutMs } = this.order;
    const late = new Failure('STARTUP_TIMEOUT', `not ready within ${startupTimeoutMs} ms`);
    const limit = deadline(clock, startupTimeoutMs, late, this.#drainAsked.signal);
    const watch = { last: 'the runner was being started' };
    try {
      const running = await driver.start(spec, limit.signal);
      undo.push(() => this.#remove(running));
      this.#phase = { at: 'started', running };
      watch.last = 'it was not asked yet';
      await this.#untilHealthy(running, watch, limit.signal);
      return running;
    } catch (thrown) {
      if (!limit.signal.aborted || limit.signal.reason !== late) throw thrown;
      throw new Failure('STARTUP_TIMEOUT', `${late.message}: ${watch.last}`);
    } finally {
      limit.cancel();
    }
  }

  async #untilHealthy(running: Running, watch: HealthWatch, signal: AbortSignal): Promise<void> {
    const { clock, dispatcher } = this.#parts;
    const exited = running.exited.then((exit) => {
      this.#leave(new Failure('RUNNER_DISCONNECTED', `runner ${this.id} ended: ${wordsOf(exit)}`));
      throw new ExitedEarly(exit);
    });
    exited.catch(() => undefined);
    const over = new AbortController();
    const check = { address: running.address, ...this.order.health };
    const healthy = untilHealthy(
      check,
      { clock, dispatcher, watch },
      AbortSignal.any([signal, over.signal]),
    );
    healthy.catch(() => undefined);
    try {
      await Promise.race([healthy, exited]);
    } finally {
      over.abort(new Failure('RUNNER_GONE', 'nobody waits for its health any more'));
    }
  }

  /** Nobody is served here any more; open calls break off with `failure`. */
  #leave(failure: Failure): void {
    this.#parts.pool.remove(this.id);
    this.gone.abort(failure);
  }

  async #remove(running: Running): Promise<void> {
    await this.#terminate(running);
    await this.#parts.logs.keep(this.id, running).catch(() => undefined);
    await running.remove();
  }

  /** From ready to the end of the process. */
  async #serve(running: Running): Promise<Ending> {
    const { pool } = this.#parts;
    pool.open(this.id, this.order.slots);
    this.#enter('IDLE');
    const exited = running.exited.then((exit) => ({ exit }));
    const first = await Promise.race([exited, aborted(this.#drainAsked.signal)]);
    if (first) return endingOfExit(first.exit);
    const empty = new Promise<undefined>((resolve) =>
      pool.drain(this.id, () => resolve(undefined)),
    );
    if (!this.#stopAsked.signal.aborted) {
      this.#enter('DRAINING');
      const second = await Promise.race([exited, empty, aborted(this.#stopAsked.signal)]);
      if (second) return endingOfExit(second.exit);
    }
    return { exit: await this.#terminate(running) };
  }

  /** SIGTERM, grace, SIGKILL; how the process ended. */
  async #terminate(running: Running): Promise<Exit> {
    const { clock, log } = this.#parts;
    const over = new AbortController();
    const pause = (ms: number): Promise<undefined> =>
      sleep(clock, ms, over.signal).then(
        () => undefined,
        () => undefined,
      );
    try {
      const already = await Promise.race([running.exited, pause(0)]);
      if (already) return already;
      this.#enter('TERMINATING');
      await this.#signal(running, 'SIGTERM');
      const ended = await Promise.race([
        running.exited,
        pause(this.order.graceMs),
        aborted(this.#killAsked.signal),
      ]);
      if (ended) return ended;
      await this.#signal(running, 'SIGKILL');
      const killed = await Promise.race([running.exited, pause(AFTER_KILL_MS)]);
      if (killed) return killed;
      log.error('a runner outlives SIGKILL', { runner: this.id, pid: running.pid });
      return { kind: 'unknown' };
    } finally {
      over.abort();
      this.#leave(new Failure('RUNNER_DISCONNECTED', `runner ${this.id} was stopped`));
    }
  }

  /** One that cannot be sent is said: the next step, at last the removal, goes on without it (W1). */
  async #signal(running: Running, name: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await running.signal(name).catch((thrown: unknown) =>
      this.#parts.log.error('a runner cannot be signalled', {
        runner: this.id,
        signal: name,
        reason: asFailure(thrown).message,
      }),
    );
  }

  #endingOf(thrown: unknown): Ending {
    if (thrown instanceof ExitedEarly) return endingOfExit(thrown.exit);
    // Stopped before it was ready: nothing failed.
    if (this.#drainAsked.signal.aborted) return {};
    return { failure: asFailure(thrown) };
  }

  /** Adds the last lines of output to what people read first. */
  async #withOutput(failure: Failure): Promise<Failure> {
    if (this.#phase.at !== 'started') return failure;
    const tail = await this.#parts.logs.tail(this.id);
    if (tail === '') return failure;
    return new Failure(failure.code, `${failure.message}; its last output: ${tail}`, {
      cause: failure,
    });
  }

  #enter(state: RunnerState): void {
    if (state === this.#state) return;
    assert(mayFollow(this.#state, state), `${state} cannot follow ${this.#state}`);
    const nowMs = this.#parts.clock.elapsed();
    const spentMs = Math.round((nowMs - this.#stateSinceMs) * 10) / 10;
    this.#phases[this.#state] = (this.#phases[this.#state] ?? 0) + spentMs;
    this.#stateSinceMs = nowMs;
    this.#state = state;
    this.#say();
  }

  #say(): void {
    this.#parts.report(this.report());
  }
}

/** The process ended before it was healthy. */
class ExitedEarly extends Error {
  readonly exit: Exit;
  constructor(exit: Exit) {
    super('the runner ended before it was ready');
    this.exit = exit;
  }
}

/** The app file's own names win, save for those that say where it runs. */
function environmentOf(order: StartOrder): Record<string, string> {
  return {
    ...(order.source.kind === 'image' ? { HF_HOME: '/data/.cache/huggingface' } : {}),
    ...order.env,
    PORT: String(order.port),
    FAL_APP_NAME: order.app,
    FAL_JOB_ID: order.runnerId,
  };
}

function endingOfExit(exit: Exit): Ending {
  return { exit, failure: new Failure('RUNNER_EXITED', `the process ended: ${wordsOf(exit)}`) };
}

function wordsOf(exit: Exit): string {
  switch (exit.kind) {
    case 'code':
      return `exit code ${exit.code}`;
    case 'signal':
      return `signal ${exit.signal}`;
    case 'oom':
      return 'it used more memory than it was given';
    case 'unknown':
      return 'nobody saw how';
  }
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(undefined);
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
