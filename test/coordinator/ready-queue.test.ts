// The window over a long queue against a plain sorted list: same order, same depth, whatever comes between a scan's read and
// its arrival (W1, W2).
import fc from 'fast-check';
import t from 'tap';
import { ReadyQueue, WINDOW, type QueueEntry } from '../../coordinator/queue/ready-queue.ts';
import type { RequestId } from '../../shared/ids.ts';

const entry = (sequence: number): QueueEntry => ({
  sequence,
  requestId: String(sequence) as RequestId,
});

type Move =
  | { kind: 'add'; count: number }
  | { kind: 'take' | 'retry' | 'cancel' | 'read' | 'arrive'; pick: number };

const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      count: fc.integer({ min: 1, max: 200 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'take' as const,
        'take' as const,
        'retry' as const,
        'cancel' as const,
        'read' as const,
        'arrive' as const,
      ),
      pick: fc.nat(),
    }),
  },
);

void t.test('same order as a sorted list', async (t) => {
  fc.assert(
    fc.property(fc.array(move, { maxLength: 300 }), fc.nat({ max: 1_000 }), (moves, start) => {
      // What is on disk, in order; the model of truth.
      let disk: number[] = Array.from({ length: start }, (_, at) => at + 1);
      let next = start;
      const taken: number[] = [];
      const queue = new ReadyQueue(disk.length, disk.slice(0, WINDOW).map(entry));
      let reading: { entries: QueueEntry[]; complete: boolean } | undefined;
      let wanted: { afterSequence: number; limit: number } | undefined;
      const read = (): void => {
        wanted ??= queue.beginScan();
        if (!wanted || reading) return;
        const { afterSequence, limit } = wanted;
        const found = disk.filter((one) => one > afterSequence).slice(0, limit);
        reading = { entries: found.map(entry), complete: found.length < limit };
      };
      const arrive = (): void => {
        if (!reading) return;
        queue.refill(reading.entries, reading.complete);
        reading = undefined;
        wanted = undefined;
      };
      const take = (): boolean => {
        const got = queue.take();
        if (!got) return false;
        if (got.sequence !== disk[0])
          throw new Error(`took ${got.sequence}, first is ${String(disk[0])}`);
        disk.shift();
        taken.push(got.sequence);
        return true;
      };
      for (const one of moves) {
        if (one.kind === 'add')
          for (let count = 0; count < one.count; count += 1) {
            next += 1;
            disk.push(next);
            queue.add(entry(next));
          }
        else if (one.kind === 'take') take();
        else if (one.kind === 'retry' && taken.length > 0) {
          const [back] = taken.splice(one.pick % taken.length, 1);
          if (back === undefined) continue;
          disk = [...disk, back].sort((a, b) => a - b);
          queue.add(entry(back));
        } else if (one.kind === 'cancel' && disk.length > 0) {
          const [gone] = disk.splice(one.pick % disk.length, 1);
          if (gone !== undefined) queue.remove(gone);
        } else if (one.kind === 'read') read();
        else if (one.kind === 'arrive') arrive();
        if (queue.depth !== disk.length)
          throw new Error(`depth ${queue.depth}, disk ${disk.length}`);
      }
      // In the end everything comes out, in order, as long as scans are answered.
      for (let guard = 0; disk.length > 0; guard += 1) {
        if (guard > 10_000) throw new Error('stuck');
        if (!take()) {
          read();
          arrive();
        }
      }
      return queue.depth === 0;
    }),
    { numRuns: 300 },
  );
  t.pass('300 histories');
});
