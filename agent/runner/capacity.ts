// What of the node is promised to runners: CPU, memory and whole GPUs. A runner reserves everything it needs before any
// byte is fetched for it, so that two starts never find the same room. Free of I/O and time.
import type { RunnerId } from '../../shared/ids.ts';
import type { Gpu } from '../node/gpu-probe.ts';
import { release, take, type GpuWish, type HandOut } from '../node/gpu-hand-out.ts';
import type { GrantedGpu } from './driver.ts';

export interface NodeResources {
  /** Cores. */
  cpu: number;
  memoryBytes: number;
}

export interface Wish {
  gpus: GpuWish;
  /** Absent: no limit, and nothing is reserved. */
  cpu?: number;
  memoryBytes?: number;
}

export type Reservation =
  { kind: 'reserved'; gpus: readonly GrantedGpu[] } | { kind: 'refused'; reason: string };

export class Capacity {
  readonly #total: NodeResources;
  readonly #held = new Map<RunnerId, { cpu: number; memoryBytes: number }>();
  #gpus: HandOut = new Map();

  constructor(total: NodeResources) {
    this.#total = total;
  }

  /** Reserves all of `wish` or nothing. `gpus` is what the node sees now. */
  reserve(runnerId: RunnerId, wish: Wish, gpus: readonly Gpu[]): Reservation {
    const { cpu = 0, memoryBytes = 0 } = wish;
    const free = this.free;
    if (cpu > free.cpu) return refused(`${cpu} CPU cores wanted, ${round(free.cpu)} free`);
    if (memoryBytes > free.memoryBytes)
      return refused(`${memoryBytes} bytes of memory wanted, ${free.memoryBytes} free`);
    const taken = take(this.#gpus, gpus, wish.gpus, runnerId);
    if (taken.kind === 'refused') return refused(taken.reason);
    this.#gpus = taken.state;
    this.#held.set(runnerId, { cpu, memoryBytes });
    return { kind: 'reserved', gpus: taken.gpus };
  }

  release(runnerId: RunnerId): void {
    this.#held.delete(runnerId);
    this.#gpus = release(this.#gpus, runnerId);
  }

  get free(): NodeResources {
    let { cpu, memoryBytes } = this.#total;
    for (const held of this.#held.values()) {
      cpu -= held.cpu;
      memoryBytes -= held.memoryBytes;
    }
    return { cpu, memoryBytes };
  }
}

function refused(reason: string): Reservation {
  return { kind: 'refused', reason };
}

function round(cores: number): number {
  return Math.round(cores * 1000) / 1000;
}
