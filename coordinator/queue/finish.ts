// The end of an attempt, and of a request. Q2: a request has exactly one terminal result, written once while it is open.
// Q3: a late success of an older attempt may complete a request that is still open; a late failure changes nothing.
import type { EventOf } from '../core/event.ts';
import type { Turn } from '../core/turn.ts';
import { failures, type FailureCode } from '../../shared/failure.ts';
import { partitionOfRequest } from '../../shared/ids.ts';
import type { Headers, Outcome } from '../../shared/protocol.ts';
import { releaseFlight } from '../dispatch/leases.ts';
import { afterRefusal } from '../dispatch/shyness.ts';
import { stopRunner } from '../scale/stop-runner.ts';
import { keys } from '../store/keys.ts';
import type { BodyRest, Flight, RequestRecord, Terminal } from '../store/records.ts';
import { currentFlight, tokenOf } from './current-flight.ts';
import { conditionOf, retryVerdict, saysNothing } from './retry-rule.ts';
import { runnerVerdict } from './runner-verdict.ts';

export function finished(turn: Turn, event: EventOf<'finished'>): void {
  const record = turn.request(event.attempt.requestId);
  // The ack is sent also for what is already ended or unknown: the agent must not keep it for ever (A1, R11).
  const acknowledge = (): void =>
    turn.send(event.nodeId, { name: 'ack', body: { token: event.token } });
  if (!record || record.state.kind === 'done') return acknowledge();
  const flight = currentFlight(record, event.attempt);
  if (!flight) {
    if (conditionOf(event.outcome) === undefined && event.outcome.kind === 'response') {
      revokeFlight(turn, record);
      finishWith(turn, record, event);
    }
    return acknowledge();
  }
  const { outcome } = event;
  if (outcome.kind === 'failed' && saysNothing(outcome.code)) {
    cutShort(turn, record, flight, outcome.code);
    return acknowledge();
  }
  const counted = flight.startedAt === undefined ? record.attempts + 1 : record.attempts;
  endFlight(turn, { ...record, attempts: counted }, flight, event);
  acknowledge();
}

/** The agent could not go on with it, which is no failure of the app: it runs elsewhere, uncharged (Q5). */
function cutShort(turn: Turn, record: RequestRecord, flight: Flight, code: FailureCode): void {
  const link = turn.state.nodes.get(flight.nodeId)?.link;
  const runner = turn.state.runners.get(flight.runnerId);
  if (code === 'NODE_DRAINING' && link?.kind === 'linked') link.draining = true;
  if (runner) runner.shy = afterRefusal(runner.shy, 'runner', turn.elapsed);
  const { epoch, number } = flight;
  turn.act({
    act: 'then',
    event: { type: 'requeue', requestId: record.id, attempt: { epoch, number }, why: code },
  });
}

function endFlight(
  turn: Turn,
  record: RequestRecord,
  flight: Flight,
  event: EventOf<'finished'>,
): void {
  const runner = turn.state.runners.get(flight.runnerId);
  const verdict = runnerVerdict(event.outcome);
  const spec = runner?.revision.spec ?? turn.state.apps.get(record.app)?.revision.spec;
  const retry = spec
    ? retryVerdict(record, spec, event.outcome, turn.state.chance)
    : { retry: false as const };
  if (runner && verdict.stop) stopRunner(turn, runner, 'stop', verdict.why);
  if (!retry.retry) return finishWith(turn, record, event);
  releaseFlight(turn, record.id);
  const partition = partitionOfRequest(record.id);
  const notBefore = turn.now + retry.afterMs;
  const lastFailure = { ...failureOf(event.outcome), at: turn.now };
  turn.putRequest({ ...record, lastFailure, state: { kind: 'waiting', notBefore } }, 'sync');
  turn.delete(partition, keys.flight(record.id, flight.nodeId), 'sync');
  turn.put(partition, keys.due(record.id, 'retry'), notBefore, 'sync');
  turn.state.agenda.set(`retry:${record.id}`, turn.elapsed + retry.afterMs);
  turn.record('request.retried', {
    request: record.id,
    app: record.app,
    attempts: record.attempts,
    afterMs: retry.afterMs,
    code: lastFailure.code,
  });
  turn.act({ act: 'notify', requestId: record.id });
}

/** Ends an open request with what an attempt gave. */
function finishWith(turn: Turn, record: RequestRecord, event: EventOf<'finished'>): void {
  const { outcome } = event;
  const end = {
    at: turn.now,
    durationMs: event.durationMs,
    nodeId: event.nodeId,
    ...(record.state.kind === 'flight' ? { runnerId: record.state.flight.runnerId } : {}),
  };
  if (outcome.kind === 'failed') return failRequest(turn, record, outcome, end);
  const body: BodyRest =
    outcome.body.kind === 'inline'
      ? { kind: 'inline', sizeBytes: outcome.body.bytes.byteLength }
      : outcome.body;
  const inline = outcome.body.kind === 'inline' ? outcome.body.bytes : undefined;
  const headers = headersForCaller(outcome.status, outcome.headers);
  endRequest(turn, record, { ...end, status: outcome.status, headers, body }, inline);
}

/** Ends an open request with a failure of the platform's own. */
export function failRequest(
  turn: Turn,
  record: RequestRecord,
  failure: { code: FailureCode; message: string },
  end: Partial<Terminal> = {},
): void {
  const { code, message } = failure;
  endRequest(turn, record, {
    at: turn.now,
    ...end,
    status: failures[code].status,
    headers: [],
    body: { kind: 'inline', sizeBytes: 0 },
    failure: { code, message },
  });
}

/** The one place where a request becomes terminal (Q2). */
function endRequest(turn: Turn, record: RequestRecord, end: Terminal, output?: Uint8Array): void {
  const partition = partitionOfRequest(record.id);
  takeFromQueue(turn, record);
  turn.putRequest({ ...record, state: { kind: 'done', end } }, 'sync');
  if (output && output.byteLength > 0) turn.put(partition, keys.output(record.id), output, 'sync');
  if (record.state.kind === 'flight')
    turn.delete(partition, keys.flight(record.id, record.state.flight.nodeId), 'sync');
  if (record.startTimeoutMs !== undefined)
    turn.delete(partition, keys.due(record.id, 'start'), 'sync');
  if (record.state.kind === 'waiting') turn.delete(partition, keys.due(record.id, 'retry'), 'sync');
  turn.state.agenda.set(`start:${record.id}`, undefined);
  turn.state.agenda.set(`retry:${record.id}`, undefined);
  turn.record('request.completed', {
    request: record.id,
    app: record.app,
    status: end.status,
    code: end.failure?.code ?? null,
    attempts: record.attempts,
    totalMs: turn.now - record.submittedAt,
    runMs: end.durationMs ?? null,
  });
  turn.act({ act: 'notify', requestId: record.id });
  turn.touch(record.app);
}

/** Frees whatever place the request holds: in its ready queue, reserved, or in flight (then that attempt is revoked). */
function takeFromQueue(turn: Turn, record: RequestRecord): void {
  const hold = turn.state.flights.get(record.id)?.hold;
  if (record.state.kind === 'ready') {
    turn.delete(
      partitionOfRequest(record.id),
      keys.ready(record.app, record.priority, record.sequence),
      'sync',
    );
    if (hold?.kind !== 'reserved')
      turn.state.apps.get(record.app)?.ready[record.priority].remove(record.sequence);
  }
  releaseFlight(turn, record.id);
}

/** Breaks off a flight that nobody waits for any more. */
export function revokeFlight(turn: Turn, record: RequestRecord): void {
  if (record.state.kind !== 'flight') return;
  const { flight } = record.state;
  turn.send(flight.nodeId, { name: 'revoke', body: { token: tokenOf(turn, record, flight) } });
}

function failureOf(outcome: Outcome): { code: FailureCode; message: string } {
  if (outcome.kind === 'failed') return { code: outcome.code, message: outcome.message };
  return { code: 'RUNNER_CONNECTION', message: `the app answered ${outcome.status}` };
}

/** Headers that are between the app and the platform do not reach the caller (fal-contract §2.4). */
function headersForCaller(status: number, headers: Headers): Headers {
  const retryable = status >= 500 || status === 429;
  return headers.filter(([name]) => {
    const lower = name.toLowerCase();
    return lower !== 'x-fal-stop-runner' && (lower !== 'x-fal-needs-retry' || retryable);
  });
}
