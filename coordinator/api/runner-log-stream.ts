// Output of a runner as one stream of bytes, read from its agent piece by piece as the reader takes it.
import { sleep, type Clock } from '../../shared/clock.ts';
import type { RunnerId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { CoordinatorPort } from './port.ts';

/** How often a log that is followed is asked for more. */
const FOLLOW_MS = 500;

/** Ends at the end of what there is, or with `follow` at the end of the runner or when `signal` aborts. */
export async function* runnerLog(
  port: CoordinatorPort,
  clock: Clock,
  runnerId: RunnerId,
  from: { offset: number; follow: boolean },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let { offset } = from;
  while (!signal.aborted) {
    const piece = await port.readLog(runnerId, offset, limits.logReadBytes, signal);
    if (piece.bytes.byteLength > 0) yield piece.bytes;
    // What was dropped before the kept part is skipped: the answer says where it begins.
    offset = piece.offset + piece.bytes.byteLength;
    const atEnd = offset >= piece.end || piece.bytes.byteLength === 0;
    if (atEnd && (piece.ended || !from.follow)) return;
    if (atEnd) await sleep(clock, FOLLOW_MS, signal).catch(() => undefined);
  }
}
