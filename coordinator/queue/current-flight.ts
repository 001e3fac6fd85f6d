// Which attempt of a request is the current one, and the token that proves it (Q3).
import type { Turn } from '../core/turn.ts';
import { partitionOfRequest } from '../../shared/ids.ts';
import { attemptToken } from '../../shared/token.ts';
import type { Flight, RequestRecord } from '../store/records.ts';

export function tokenOf(turn: Turn, record: RequestRecord, flight: Flight): string {
  const { epoch, number, nonce } = flight;
  const partition = partitionOfRequest(record.id);
  return attemptToken(turn.state.tokenKey, {
    partition,
    epoch,
    requestId: record.id,
    number,
    nonce,
  });
}

/** The flight of the record when the attempt is its current one. */
export function currentFlight(
  record: RequestRecord | undefined,
  attempt: { epoch: number; number: number },
): Flight | undefined {
  if (record?.state.kind !== 'flight') return undefined;
  const { flight } = record.state;
  return flight.epoch === attempt.epoch && flight.number === attempt.number ? flight : undefined;
}
