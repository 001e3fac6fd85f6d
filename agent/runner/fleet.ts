// All runners of this node: who was ordered, who lives, and the last ones that ended (so that a coordinator that was
// away hears how). Every order is idempotent: one that is known is answered by what is known.
import type { Timer } from '../../shared/clock.ts';
import type { RunnerId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { RunnerReport } from '../../shared/protocol.ts';
import type { RunnerState } from '../../shared/runner-state.ts';
import type { GpuReading } from '../node/gpu-probe.ts';
import type { Capacity, Reservation } from './capacity.ts';
import type { Driver, LogSlice } from './driver.ts';
import { Life, type StartOrder, type StopHow } from './life.ts';
import type { LifeParts } from './life-parts.ts';

export interface FleetParts extends Omit<LifeParts, 'driver' | 'report'> {
  drivers: readonly Driver[];
  capacity: Capacity;
  /** What is known of the GPUs now. */
  gpus(): GpuReading;
  /** Hears each change of each runner. */
  report(report: RunnerReport): void;
}

/** Runners that ended and are still named in a hello. */
const REMEMBERED = 20;
/** A runner counts as idle once no slot was used for so long: between two requests of a busy one nothing is told. */
const IDLE_AFTER_MS = 100;

export class Fleet {
  readonly #parts: FleetParts;
  readonly #lives = new Map<RunnerId, Life>();
  readonly #ended = new Map<RunnerId, RunnerReport>();
  readonly #idling = new Map<RunnerId, Timer>();
  #isClosing = false;

  constructor(parts: FleetParts) {
    this.#parts = parts;
  }

  start(order: StartOrder): void {
    const { runnerId } = order;
    const known = this.#lives.get(runnerId)?.report() ?? this.#ended.get(runnerId);
    if (known) return this.#parts.report(known);
    if (this.#isClosing) return this.#refuse(order, 'NODE_DRAINING', 'the agent is stopping');
    const driver = this.#driverFor(order.source.kind);
    if (!driver)
      return this.#refuse(
        order,
        'DRIVER_UNAVAILABLE',
        `no driver for ${order.source.kind} runners`,
      );
    if (this.#lives.size >= limits.runnersPerNode)
      return this.#refuse(order, 'NODE_FULL', `there are ${limits.runnersPerNode} runners already`);
    const reserved = this.#reserve(order);
    if (reserved.kind === 'refused') return this.#refuse(order, 'NODE_FULL', reserved.reason);
    const parts = { ...this.#parts, driver, report: (report: RunnerReport) => this.#heard(report) };
    const life = new Life(order, reserved.gpus, parts, () =>
      this.#parts.capacity.release(runnerId),
    );
    this.#lives.set(runnerId, life);
    void life.ended.then(() => this.#forget(life));
  }

  stop(runnerId: RunnerId, how: StopHow): void {
    const life = this.#lives.get(runnerId);
    if (life) return life.stop(how);
    const known = this.#ended.get(runnerId);
    if (known) this.#parts.report(known);
  }

  /** Where a ready runner is called, and the signal of its end. */
  open(
    runnerId: RunnerId,
  ): { address: { host: string; port: number }; gone: AbortSignal } | undefined {
    const life = this.#lives.get(runnerId);
    const address = life?.address;
    return life && address ? { address, gone: life.gone.signal } : undefined;
  }

  /** The pool says that a runner's slots are in use, or are not. */
  used(runnerId: RunnerId, isUsed: boolean): void {
    this.#idling.get(runnerId)?.cancel();
    this.#idling.delete(runnerId);
    if (isUsed) return this.#lives.get(runnerId)?.used(true);
    const timer = this.#parts.clock.after(IDLE_AFTER_MS, () => {
      this.#idling.delete(runnerId);
      this.#lives.get(runnerId)?.used(false);
    });
    this.#idling.set(runnerId, timer);
  }

  reports(): RunnerReport[] {
    return [...this.#ended.values(), ...[...this.#lives.values()].map((life) => life.report())];
  }

  byState(): Map<RunnerState, number> {
    const counts = new Map<RunnerState, number>();
    for (const { state } of this.#lives.values()) counts.set(state, (counts.get(state) ?? 0) + 1);
    return counts;
  }

  /** Output of a runner, alive or lately ended; undefined when nothing is known of it. */
  async readLog(
    runnerId: RunnerId,
    offset: number,
    maxBytes: number,
  ): Promise<(LogSlice & { ended: boolean }) | undefined> {
    const slice = await this.#lives.get(runnerId)?.readLog(offset, maxBytes);
    if (slice) return { ...slice, ended: false };
    const kept = await this.#parts.logs.read(runnerId, offset, maxBytes);
    return kept && { ...kept, ended: true };
  }

  /** Ends every runner with its grace. */
  async close(): Promise<void> {
    this.#isClosing = true;
    const lives = [...this.#lives.values()];
    for (const life of lives) life.stop('stop');
    await Promise.all(lives.map(({ ended }) => ended));
    for (const timer of this.#idling.values()) timer.cancel();
  }

  #heard(report: RunnerReport): void {
    if (report.state === 'TERMINATED') {
      this.#ended.set(report.runnerId, report);
      for (const old of [...this.#ended.keys()].slice(0, -REMEMBERED)) this.#ended.delete(old);
    }
    this.#parts.report(report);
  }

  #forget(life: Life): void {
    this.#lives.delete(life.id);
    this.#idling.get(life.id)?.cancel();
    this.#idling.delete(life.id);
  }

  #refuse(
    order: StartOrder,
    code: 'NODE_DRAINING' | 'NODE_FULL' | 'DRIVER_UNAVAILABLE',
    message: string,
  ): void {
    const { runnerId, app, revision, slots } = order;
    const failure = { code, message: message.slice(0, 4096) };
    this.#heard({ runnerId, app, revision, state: 'TERMINATED', slots, gpus: [], failure });
  }

  #reserve(order: StartOrder): Reservation {
    const { runnerId, cpu, memoryBytes } = order;
    const { count, name, vramBytes } = order.gpus;
    const gpus = this.#parts.gpus();
    if (count > 0 && gpus.kind === 'no_answer')
      return { kind: 'refused', reason: `the GPUs do not answer: ${gpus.reason}` };
    const wish = {
      gpus: {
        count,
        ...(name === undefined ? {} : { gpu: name }),
        ...(vramBytes === undefined ? {} : { vramBytes }),
      },
      ...(cpu === undefined ? {} : { cpu }),
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
    };
    return this.#parts.capacity.reserve(runnerId, wish, gpus.kind === 'gpus' ? gpus.gpus : []);
  }

  #driverFor(kind: StartOrder['source']['kind']): Driver | undefined {
    const { drivers } = this.#parts;
    const name = kind === 'image' ? 'runc' : 'process';
    return (
      drivers.find((driver) => driver.name === name) ??
      drivers.find((driver) => driver.name === 'memory')
    );
  }
}
