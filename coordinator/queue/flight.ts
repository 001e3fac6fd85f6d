// The flight of a request: from its queue to a runner, and back when it was not begun or was cut short. Q3: each dispatch has
// its own number and nonce under the token. Q5: it counts only once the agent acknowledged the start.
import type { EventOf } from '../core/event.ts';
import type { Turn } from '../core/turn.ts';
import { hexOfBytes, partitionOfRequest } from '../../shared/ids.ts';
import type { BodyRef } from '../../shared/protocol.ts';
import { isOpen, releaseFlight, takeSlot } from '../dispatch/leases.ts';
import { putBack } from '../dispatch/put-back.ts';
import { afterRefusal, notShy } from '../dispatch/shyness.ts';
import { endRunner } from '../scale/end-runner.ts';
import type { Runner } from '../state/runner.ts';
import { nodeOf } from '../state/runner.ts';
import { keys } from '../store/keys.ts';
import type { Flight, RequestRecord } from '../store/records.ts';
import type { Durability } from '../store/store.ts';
import { currentFlight, tokenOf } from './current-flight.ts';
import { failRequest } from './finish.ts';
import { DISPATCHES } from './retry-rule.ts';

/** Takes a slot of `runner` for the request, writes that, and sends the attempt. */
export function sendFlight(
  turn: Turn,
  runner: Runner,
  record: RequestRecord,
  options: { durability: Durability; inline?: Uint8Array },
): void {
  const nodeId = nodeOf(runner);
  if (!nodeId) return;
  const flight: Flight = {
    epoch: turn.state.epoch,
    number: record.dispatches + 1,
    nonce: hexOfBytes(turn.state.chance.bytes(8, 'attempt nonce')),
    runnerId: runner.id,
    nodeId,
  };
  const token = tokenOf(turn, record, flight);
  if (!runner.leases.has(record.id)) takeSlot(turn, runner, record.id);
  turn.state.flights.set(record.id, {
    requestId: record.id,
    app: record.app,
    runnerId: runner.id,
    hold: { kind: 'sent', epoch: flight.epoch, number: flight.number, token, nodeId },
  });
  turn.putRequest(
    {
      ...record,
      revision: runner.revision.revision,
      dispatches: flight.number,
      state: { kind: 'flight', flight },
    },
    options.durability,
  );
  turn.put(
    partitionOfRequest(record.id),
    keys.flight(record.id, nodeId),
    flight.number,
    options.durability,
  );
  turn.record('request.dispatched', {
    request: record.id,
    app: record.app,
    runner: runner.id,
    number: flight.number,
  });
  const needsLoad = record.input.kind === 'inline' && !options.inline;
  turn.send(
    nodeId,
    {
      name: 'assign',
      body: {
        token,
        requestId: record.id,
        number: flight.number,
        runnerId: runner.id,
        method: record.method,
        path: `${record.path}${record.query}`,
        headers: [
          ...record.headers,
          ['x-fal-request-id', record.id],
          ['x-fal-endpoint', `${record.app}${record.path}`],
        ],
        input: inputOf(record, options.inline),
        timeoutMs: runner.revision.spec.timeouts.request_timeout * 1000,
      },
    },
    needsLoad ? record.id : undefined,
  );
}

function inputOf(record: RequestRecord, inline: Uint8Array | undefined): BodyRef {
  if (record.input.kind === 'payload') return record.input;
  return { kind: 'inline', bytes: inline ?? new Uint8Array() };
}

/** The record of a reserved request is loaded: send it, or give the slot back. */
export function dispatchLoaded(turn: Turn, event: EventOf<'dispatch'>): void {
  const flight = turn.state.flights.get(event.requestId);
  if (flight?.hold.kind !== 'reserved' || flight.runnerId !== event.runnerId) return;
  const record = turn.request(event.requestId);
  if (record?.state.kind !== 'ready') return releaseFlight(turn, event.requestId);
  const runner = turn.state.runners.get(event.runnerId);
  if (!runner || !isOpen(turn, runner)) return putBack(turn, event.requestId);
  turn.delete(
    partitionOfRequest(record.id),
    keys.ready(record.app, record.priority, record.sequence),
    'soft',
  );
  sendFlight(turn, runner, record, { durability: 'soft' });
}

export function started(turn: Turn, event: EventOf<'started'>): void {
  const record = turn.request(event.attempt.requestId);
  const flight = currentFlight(record, event.attempt);
  if (!record || !flight || flight.startedAt !== undefined) return;
  turn.putRequest(
    {
      ...record,
      attempts: record.attempts + 1,
      state: { kind: 'flight', flight: { ...flight, startedAt: turn.now } },
    },
    'soft',
  );
  const runner = turn.state.runners.get(flight.runnerId);
  if (runner) runner.shy = notShy;
  turn.record('request.started', { request: record.id, app: record.app, runner: flight.runnerId });
  turn.act({ act: 'notify', requestId: record.id });
}

/** The agent would not begin it: nothing is charged, and the runner is left alone for a moment. */
export function refused(turn: Turn, event: EventOf<'refused'>): void {
  const record = turn.request(event.attempt.requestId);
  const flight = currentFlight(record, event.attempt);
  if (!record || !flight) return;
  const { code } = event.failure;
  turn.record('request.refused', { request: record.id, runner: flight.runnerId, code });
  const runner = turn.state.runners.get(flight.runnerId);
  const node = turn.state.nodes.get(flight.nodeId);
  if (code === 'NODE_DRAINING' && node?.link.kind === 'linked') node.link.draining = true;
  if (runner) runner.shy = afterRefusal(runner.shy, 'runner', turn.elapsed);
  comeBack(turn, record, flight);
  if (runner && code === 'RUNNER_GONE')
    endRunner(turn, runner, { reason: 'the agent does not know it' });
}

/** A flight was cut short by us, by its agent or by the network: it runs again and costs no attempt (Q5). */
export function requeue(turn: Turn, event: EventOf<'requeue'>): void {
  const record = turn.request(event.requestId);
  const flight = currentFlight(record, event.attempt);
  if (!record || !flight) return;
  // It came back in the meantime, and its hello said what becomes of the attempt.
  if (event.unlessBack && turn.state.nodes.get(flight.nodeId)?.link.kind === 'linked') return;
  turn.record('request.refused', { request: record.id, runner: flight.runnerId, why: event.why });
  const attempts =
    flight.startedAt === undefined ? record.attempts : Math.max(0, record.attempts - 1);
  comeBack(turn, { ...record, attempts }, flight);
}

/** Back to its place in the queue (Q4: the sequence stays), unless nobody wants it any more. */
function comeBack(turn: Turn, record: RequestRecord, flight: Flight): void {
  releaseFlight(turn, record.id);
  turn.delete(partitionOfRequest(record.id), keys.flight(record.id, flight.nodeId), 'soft');
  if (record.cancelRequestedAt !== undefined)
    return failRequest(turn, record, {
      code: 'CLIENT_CANCELLED',
      message: 'Request was cancelled',
    });
  if (record.dispatches >= DISPATCHES)
    return failRequest(turn, record, {
      code: 'RUNNER_SCHEDULING',
      message: `no runner began it in ${DISPATCHES} dispatches`,
    });
  makeReady(turn, { ...record, state: { kind: 'ready' } });
}

/** Puts an open request into its ready queue. */
export function makeReady(turn: Turn, record: RequestRecord): void {
  const app = turn.state.apps.get(record.app);
  turn.putRequest({ ...record, state: { kind: 'ready' } }, 'soft');
  turn.put(
    partitionOfRequest(record.id),
    keys.ready(record.app, record.priority, record.sequence),
    record.id,
    'soft',
  );
  app?.ready[record.priority].add({ sequence: record.sequence, requestId: record.id });
  if (record.startTimeoutMs !== undefined) {
    const leftMs = record.submittedAt + record.startTimeoutMs - turn.now;
    turn.state.agenda.set(
      `start:${record.id}`,
      turn.elapsed + Math.max(0, Math.min(leftMs, record.startTimeoutMs)),
    );
  }
  turn.act({ act: 'notify', requestId: record.id });
  turn.touch(record.app);
}
