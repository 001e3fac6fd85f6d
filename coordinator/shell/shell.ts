// The shell round the core: loads what an event needs, applies events one by one in the order of their arrival, commits what
// they wrote as one batch with whatever else waits (group commit), and only then performs what they want done.
// H1: acts of a step are performed after its writes, and those of every step before it, are on disk.
// H2: a failed commit throws the core away: its memory may be ahead of the disk. Everybody who waits is told that the
//     outcome is unknown, links are closed, the store is opened again, and a new core starts at the next epoch.
// H3: answers to direct calls depend on nothing written, so they do not wait for a commit. What such a step plans besides
//     (sends, scans) keeps its turn.
// H4: a defect of the core ends it as a failed commit does.
import { sleep, type Timer } from '../../shared/clock.ts';
import { asFailure, Failure } from '../../shared/failure.ts';
import type { Act, Step } from '../core/act.ts';
import type { Core } from '../core/core.ts';
import { keysOf, type Event } from '../core/event.ts';
import { decodeValue } from '../store/codec.ts';
import { keys } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { batchesOf, durabilityOf } from './batches.ts';
import { boot, readyEntry, type BootParts } from './boot.ts';
import { Overlay } from './overlay.ts';

/** What the shell may do to the world; the composition root wires it. */
export interface Effects {
  perform(act: Exclude<Act, { act: 'scan' } | { act: 'then' }>): void;
  /** The core was thrown away: nobody's answer is known, every link must go. */
  lost(failure: Failure): void;
  /** A core serves (again); whatever is watched may have changed. */
  live(core: Core): void;
  committed(milliseconds: number, operations: number): void;
}

export interface ShellParts extends Omit<BootParts, 'store'> {
  openStore(): Promise<Store>;
  effects: Effects;
}

interface Arrived {
  event: Event;
  loaded: Map<string, unknown>;
  ready: boolean;
  release: () => void;
}

interface Live {
  core: Core;
  store: Store;
  overlay: Overlay;
  arrived: Arrived[];
  /** Steps whose writes are not on disk, oldest first. */
  uncommitted: { step: Step; number: number }[];
  steps: number;
  /** The commits under way, to their end. */
  committing: Promise<void> | undefined;
  wake: { timer: Timer; at: number } | undefined;
}

type State =
  | { kind: 'closed' }
  | { kind: 'live'; live: Live }
  | { kind: 'reloading'; failure: Failure; done: Promise<void> };

/** How long to wait between tries to open the store again. */
const REOPEN_MS = 500;

export class Shell {
  readonly #parts: ShellParts;
  readonly #stopping = new AbortController();
  #state: State = { kind: 'closed' };

  constructor(parts: ShellParts) {
    this.#parts = parts;
  }

  /** @throws Failure STORE_LOCKED, STORE_TOO_NEW, STORE_CORRUPT, STORE_FAILED */
  async start(): Promise<void> {
    await this.#open();
  }

  /** The core that serves now, for queries; the failure when none does. */
  get core(): Core | Failure {
    if (this.#state.kind === 'live') return this.#state.live.core;
    if (this.#state.kind === 'reloading') return this.#state.failure;
    return new Failure('SHUTTING_DOWN', 'the coordinator is stopping');
  }

  /** The store, for reads of what is durable. @throws Failure STORE_FAILED, SHUTTING_DOWN */
  get store(): Store {
    if (this.#state.kind === 'live') return this.#state.live.store;
    throw this.core;
  }

  /** A record as it is durable, not to be changed by who reads it. @throws Failure STORE_FAILED, STORE_CORRUPT */
  async read(key: string): Promise<unknown> {
    const { store } = this;
    const found =
      this.#state.kind === 'live' ? this.#state.live.overlay.findSettled(key) : undefined;
    if (found) return found.value;
    const bytes = await store.get(key);
    return bytes ? decodeValue(key, bytes) : undefined;
  }

  /** A read of the store failed elsewhere: what is in memory cannot be carried out, so all is loaded again (H2). */
  distrust(failure: Failure): void {
    if (this.#state.kind === 'live') this.#fail(this.#state.live, failure);
  }

  /** Takes an event. One that comes while no core serves is dropped: whoever sent it was told, or says it again. */
  apply(event: Event): void {
    if (this.#state.kind !== 'live') return;
    this.#arrive(this.#state.live, event);
  }

  /** Commits what is under way and closes the store; nothing is applied any more. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Failure('SHUTTING_DOWN', 'the coordinator is stopping'));
    if (this.#state.kind === 'reloading') await this.#state.done;
    const state = this.#state;
    this.#state = { kind: 'closed' };
    if (state.kind !== 'live') return;
    const { live } = state;
    live.wake?.timer.cancel();
    // What was applied is committed and performed; who asked for more than that hears that nobody will.
    await live.committing;
    if (live.arrived.length > 0)
      this.#parts.effects.lost(new Failure('SHUTTING_DOWN', 'the coordinator is stopping'));
    await live.store.close();
  }

  async #open(): Promise<void> {
    const { openStore, effects, ...parts } = this.#parts;
    const store = await openStore();
    try {
      const core = await boot({ ...parts, store });
      const live: Live = {
        core,
        store,
        overlay: new Overlay(),
        arrived: [],
        uncommitted: [],
        steps: 0,
        committing: undefined,
        wake: undefined,
      };
      this.#state = { kind: 'live', live };
      effects.live(core);
      this.#arrive(live, { type: 'tick' });
    } catch (cause) {
      await store.close();
      throw cause;
    }
  }

  #arrive(live: Live, event: Event): void {
    if (!this.#isLive(live)) return;
    const names = keysOf(event);
    if (names.length === 0 && live.arrived.length === 0) return this.#step(live, event, new Map());
    const arrived: Arrived = {
      event,
      loaded: new Map(),
      ready: names.length === 0,
      release: live.overlay.pin(),
    };
    live.arrived.push(arrived);
    if (names.length > 0) void this.#load(live, arrived, names);
    else this.#drain(live);
  }

  async #load(live: Live, arrived: Arrived, names: string[]): Promise<void> {
    const onDisk: string[] = [];
    for (const key of names) {
      const found = live.overlay.find(key);
      if (found) arrived.loaded.set(key, found.value);
      else onDisk.push(key);
    }
    let values: (Uint8Array | undefined)[] = [];
    try {
      if (onDisk.length > 0) values = await live.store.getMany(onDisk);
    } catch (cause) {
      return this.#fail(live, asFailure(cause, 'STORE_FAILED'));
    }
    for (const [at, key] of onDisk.entries()) {
      const bytes = values[at];
      if (bytes) this.#decode(arrived.loaded, key, bytes);
    }
    arrived.ready = true;
    this.#drain(live);
  }

  /** One damaged record must not stop the rest: it is as if it were not there, and that is said. */
  #decode(loaded: Map<string, unknown>, key: string, bytes: Uint8Array): void {
    try {
      loaded.set(key, decodeValue(key, bytes));
    } catch (cause) {
      const { code, message } = asFailure(cause, 'STORE_CORRUPT');
      const fields = { code, cause: message };
      this.#parts.effects.perform({ act: 'record', name: 'store.failed', fields });
    }
  }

  #drain(live: Live): void {
    while (this.#isLive(live) && live.arrived[0]?.ready) {
      const arrived = live.arrived.shift();
      if (!arrived) return;
      // What was written since the load began is newer than what the disk gave.
      for (const key of keysOf(arrived.event)) {
        const found = live.overlay.find(key);
        if (found) arrived.loaded.set(key, found.value);
      }
      this.#step(live, arrived.event, arrived.loaded);
      arrived.release();
    }
  }

  #step(live: Live, event: Event, loaded: Map<string, unknown>): void {
    const { clock } = this.#parts;
    let step: Step;
    try {
      step = live.core.apply(event, loaded, clock.now(), clock.elapsed());
    } catch (cause) {
      // A defect: what it left behind is thrown away as after a failed commit (H2).
      return this.#fail(live, asFailure(cause));
    }
    live.steps += 1;
    // Bodies are not records: no event asks for them.
    for (const { key, value } of step.writes)
      if (!(value instanceof Uint8Array)) live.overlay.write(key, value, live.steps);
    this.#wake(live, step.wakeAt);
    if (step.writes.length === 0) {
      if (!live.committing) return this.#perform(live, step.acts);
      const isCall = event.type === 'call' || event.type === 'callEnded';
      const atOnce = isCall ? step.acts.filter(isAnswer) : [];
      this.#perform(live, atOnce); // H3
      if (atOnce.length === step.acts.length) return;
      step = { ...step, acts: step.acts.filter((act) => !atOnce.includes(act)) };
    }
    live.uncommitted.push({ step, number: live.steps });
    live.committing ??= this.#commit(live);
  }

  async #commit(live: Live): Promise<void> {
    // Whatever else arrives in this turn of the event loop joins the batch.
    await Promise.resolve();
    while (live.uncommitted.length > 0) {
      const group = live.uncommitted;
      live.uncommitted = [];
      const writes = group.flatMap(({ step }) => step.writes);
      const began = this.#parts.clock.elapsed();
      try {
        if (writes.length > 0)
          await live.store.commit(batchesOf(writes, live.core.state.epoch), durabilityOf(writes));
      } catch (cause) {
        return this.#fail(live, asFailure(cause, 'STORE_FAILED'));
      }
      if (writes.length > 0) {
        this.#parts.effects.committed(this.#parts.clock.elapsed() - began, writes.length);
        live.overlay.settle(
          writes.map((write) => write.key),
          group.at(-1)?.number ?? 0,
        );
      }
      for (const { step } of group) this.#perform(live, step.acts);
    }
    live.committing = undefined;
  }

  #perform(live: Live, acts: readonly Act[]): void {
    for (const act of acts) {
      if (act.act === 'then') this.#arrive(live, act.event);
      else if (act.act === 'scan') void this.#scan(live, act);
      else this.#parts.effects.perform(act);
    }
  }

  async #scan(live: Live, act: Extract<Act, { act: 'scan' }>): Promise<void> {
    const { app, priority, afterSequence, limit } = act;
    const range = keys.readyOf(app, priority);
    const gte = afterSequence === 0 ? range.gte : `${keys.ready(app, priority, afterSequence)}\0`;
    const entries = [];
    try {
      for await (const [key, value] of live.store.scan({ gte, lt: range.lt }, { limit }))
        entries.push(readyEntry(key, value));
    } catch (cause) {
      return this.#fail(live, asFailure(cause, 'STORE_FAILED'));
    }
    if (this.#isLive(live))
      this.#arrive(live, {
        type: 'scanned',
        app,
        priority,
        entries,
        complete: entries.length < limit,
      });
  }

  #wake(live: Live, at: number | undefined): void {
    if (live.wake?.at === at) return;
    live.wake?.timer.cancel();
    live.wake = undefined;
    if (at === undefined) return;
    const delayMs = Math.max(0, at - this.#parts.clock.elapsed());
    const timer = this.#parts.clock.after(delayMs, () => {
      live.wake = undefined;
      if (this.#isLive(live)) this.#arrive(live, { type: 'tick' });
    });
    live.wake = { timer, at };
  }

  #isLive(live: Live): boolean {
    return this.#state.kind === 'live' && this.#state.live === live;
  }

  /** H2 */
  #fail(live: Live, failure: Failure): void {
    if (!this.#isLive(live)) {
      // While stopping nobody loads it again, but who waits must hear.
      if (this.#state.kind === 'closed') this.#parts.effects.lost(failure);
      return;
    }
    live.wake?.timer.cancel();
    const done = this.#reload(live, failure);
    this.#state = { kind: 'reloading', failure, done };
    this.#parts.effects.perform({
      act: 'record',
      name: 'store.failed',
      fields: { code: failure.code, cause: String(failure.cause) },
    });
    this.#parts.effects.lost(failure);
  }

  async #reload(live: Live, failure: Failure): Promise<void> {
    await live.store.close().catch(() => undefined);
    // The same defect may come again at once.
    if (failure.code === 'INTERNAL') await this.#pause();
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#open();
        return;
      } catch (cause) {
        const { code, message } = asFailure(cause, 'STORE_FAILED');
        this.#parts.effects.perform({
          act: 'record',
          name: 'store.failed',
          fields: { code, cause: message },
        });
        await this.#pause();
      }
    }
  }

  #pause(): Promise<void> {
    const { clock } = this.#parts;
    return sleep(clock, REOPEN_MS, this.#stopping.signal).catch(() => undefined);
  }
}

function isAnswer({ act }: Act): boolean {
  return act === 'reply' || act === 'lease' || act === 'record';
}
