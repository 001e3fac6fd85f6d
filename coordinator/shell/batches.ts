// The core's writes as batches of the store: encoded, by partition, under the epoch. Of two writes to one key in a group only
// the later goes to disk. Pure.
import type { Write } from '../core/act.ts';
import { encodeValue } from '../store/codec.ts';
import type { Batch, Durability, Operation } from '../store/store.ts';

export function batchesOf(writes: readonly Write[], epoch: number): Batch[] {
  const latest = new Map<string, Write>();
  for (const write of writes) latest.set(write.key, write);
  const byPartition = new Map<number | undefined, Operation[]>();
  for (const { partition, key, value } of latest.values()) {
    const operations = byPartition.get(partition) ?? [];
    byPartition.set(partition, operations);
    operations.push(
      value === undefined
        ? { kind: 'delete', key }
        : { kind: 'put', key, value: encodeValue(value) },
    );
  }
  return [...byPartition].map(([partition, operations]) => ({ partition, epoch, operations }));
}

/** One synced write makes the whole group synced. */
export function durabilityOf(writes: readonly Write[]): Durability {
  return writes.some((write) => write.durability === 'sync') ? 'sync' : 'soft';
}
