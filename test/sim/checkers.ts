// What must hold at every step (DESIGN §3). Each finding names its invariant; the first one of a world is what matters.
import type { Core } from '../../coordinator/core/core.ts';
import { decodeValue } from '../../coordinator/store/codec.ts';
import { keys } from '../../coordinator/store/keys.ts';
import type { RequestRecord } from '../../coordinator/store/records.ts';
import type { EventName } from '../../shared/events.ts';
import { isEnding } from '../../shared/runner-state.ts';
import type { RequestId } from '../../shared/ids.ts';
import { stateOf } from '../../coordinator/state/runner.ts';
import type { SimDisk } from './sim-disk.ts';

export class Checkers {
  readonly found: string[] = [];
  /** Acknowledged submits. */
  readonly acknowledged = new Set<RequestId>();
  /** Attempts that agents began, by request. */
  readonly begun = new Map<RequestId, number>();
  /** Requests with a terminal record that was synced, with its text. */
  readonly #terminal = new Map<string, string>();
  /** Runners that scaling started in this life; one that was given up and came back was adopted. */
  readonly #started = new Set<unknown>();

  violate(what: string): void {
    this.found.push(what);
  }

  /** A core serves (again): it knows nothing of runners. */
  coreBegins(): void {
    this.#started.clear();
  }

  recorded(name: EventName, fields: Record<string, unknown>): void {
    if (name === 'runner.planned') this.#started.add(fields['runner']);
    if (name === 'runner.ended') this.#started.delete(fields['runner']);
  }

  /** Q2, Q5: every record that reaches the disk. */
  wrote(key: string, after: Uint8Array | undefined): void {
    if (!key.includes('/request/')) return;
    if (!after) return this.violate(`Q2: ${key} was deleted`);
    const record = decodeValue(key, after) as RequestRecord;
    const begun = this.begun.get(record.id) ?? 0;
    if (record.attempts > begun)
      this.violate(`Q5: ${key} counts ${record.attempts} attempts, agents began ${begun}`);
    const done = this.#terminal.get(key);
    if (record.state.kind !== 'done') {
      if (done) this.violate(`Q2: ${key} was reopened as ${record.state.kind}`);
      return;
    }
    const text = JSON.stringify(record.state.end);
    if (done && done !== text) this.violate(`Q2: ${key} has a second end: ${done} then ${text}`);
    this.#terminal.set(key, text);
  }

  /** Q1: at the acknowledgement, and after every restart. */
  durable(disk: SimDisk): void {
    for (const id of this.acknowledged)
      if (!disk.memory.entries.has(keys.request(id)))
        this.violate(`Q1: ${id} was acknowledged and is not on disk`);
    for (const [key, text] of this.#terminal) {
      const bytes = disk.memory.entries.get(key);
      const record = bytes && (decodeValue(key, bytes) as RequestRecord);
      // An end that was written but never synced may be forgotten with its power; then it may be written anew.
      if (record?.state.kind !== 'done') this.#terminal.delete(key);
      else if (JSON.stringify(record.state.end) !== text)
        this.violate(`Q2: ${key} changed on disk`);
    }
  }

  /** Memory against itself. */
  consistent(core: Core): void {
    const { state } = core;
    for (const app of state.apps.values()) {
      const { app: name } = app.record;
      const flights = [...state.flights.values()].filter((one) => one.app === name).length;
      const calls = [...state.calls.values()].filter((one) => one.app === name).length;
      if (app.inFlight !== flights + calls)
        this.violate(`S5: ${name} counts ${app.inFlight}, has ${flights} flights, ${calls} calls`);
      const live = [...app.runners].flatMap((id) => state.runners.get(id) ?? []);
      if (live.length !== app.runners.size) this.violate(`S1: ${name} lists runners that are gone`);
      const ours = live.filter((one) => this.#started.has(one.id) && !isEnding(stateOf(one)));
      const most = app.revision.spec.scaling.max_concurrency;
      if (ours.length > most) this.violate(`S1: ${name} has ${ours.length} runners of ${most}`);
      if (app.calls.some((one) => !state.waitingCalls.has(one.callId)))
        this.violate(`S5: a waiting call of ${name} is not known`);
    }
    for (const runner of state.runners.values()) {
      if (runner.leases.size > runner.slots)
        this.violate(`D1: ${runner.id} has ${runner.leases.size} leases of ${runner.slots}`);
      for (const holder of runner.leases) {
        const lease =
          typeof holder === 'string' ? state.flights.get(holder) : state.calls.get(holder);
        if (lease?.runnerId !== runner.id) this.violate(`S5: ${runner.id} is held by a ghost`);
      }
    }
    for (const [id, flight] of state.flights) {
      const runner = state.runners.get(flight.runnerId);
      // One of an earlier life holds no slot until its agent named it.
      const isOurs = flight.hold.kind === 'reserved' || flight.hold.epoch === state.epoch;
      if (runner && isOurs && !runner.leases.has(id))
        this.violate(`S5: flight ${id} holds no slot`);
      if (!runner && flight.hold.kind === 'reserved')
        this.violate(`S5: ${id} is reserved on a runner that is gone`);
    }
  }

  /** Q4: who was given a slot in this step had nobody of its priority before it. */
  inOrder(core: Core, before: ReadonlySet<RequestId>): void {
    for (const [id, { hold, app }] of core.state.flights) {
      if (before.has(id) || hold.kind !== 'reserved') continue;
      const ready = core.state.apps.get(app)?.ready;
      const head = ready?.[hold.priority].head;
      if (head && head.sequence < hold.entry.sequence)
        this.violate(`Q4: ${id} was given a slot before ${head.requestId}`);
      const normal = ready?.[0].head;
      if (hold.priority === 1 && normal) this.violate(`Q4: low ${id} before normal`);
    }
  }

  /** Memory against the disk, while nothing is being written. */
  queues(core: Core, disk: SimDisk): void {
    for (const app of core.state.apps.values())
      for (const priority of [0, 1] as const) {
        const { gte, lt } = keys.readyOf(app.record.app, priority);
        let onDisk = 0;
        for (const key of disk.memory.entries.keys()) if (key >= gte && key < lt) onDisk += 1;
        const reserved = [...core.state.flights.values()].filter(
          ({ hold, app: name }) =>
            name === app.record.app && hold.kind === 'reserved' && hold.priority === priority,
        ).length;
        const { depth } = app.ready[priority];
        if (depth + reserved !== onDisk)
          this.violate(
            `W2: ${app.record.app} ${priority}: depth ${depth} + ${reserved} reserved, ${onDisk} on disk`,
          );
      }
  }

  /** Nothing is left once everything had its time. */
  nothingLeft(core: Core, disk: SimDisk): void {
    const { state } = core;
    for (const [key, bytes] of disk.memory.entries) {
      if (key.includes('/request/')) {
        const { state: at } = decodeValue(key, bytes) as RequestRecord;
        if (at.kind !== 'done') this.violate(`liveness: ${key} is still ${JSON.stringify(at)}`);
      } else if (/^[0-9a-f]+\/(ready|due|flight)\//.test(key)) this.violate(`leak: ${key} on disk`);
    }
    for (const id of state.flights.keys()) this.violate(`leak: flight ${id}`);
    for (const id of state.calls.keys()) this.violate(`leak: call ${id}`);
    for (const id of state.waitingCalls.keys()) this.violate(`liveness: call ${id} still waits`);
  }
}
