// Waits for a queued request to end, telling why it waits. The request is durable, so a coordinator that goes away in
// between is no failure of the request: it is asked again until it is back or a patience of its own is over.
//
//   F1  Only a COMPLETED answer ends the wait well; nothing is concluded from silence.
//   F2  The polls slow down: the first seconds are when a person looks.
import { sleep, type Clock } from '../shared/clock.ts';
import { asCommandFailure, CommandFailure } from './command-failure.ts';
import type { Client, RequestView } from './client.ts';
import type { Progress } from './progress.ts';
import { waitLine } from './wait-line.ts';

const FAST_POLL_MS = 150;
const SLOW_POLL_MS = 750;
const FAST_FOR_MS = 3_000;
const PATIENCE_MS = 120_000;

/** @throws CommandFailure retry when the coordinator stays away; what `signal` aborts with */
export async function followRequest(
  client: Client,
  id: string,
  parts: { clock: Clock; progress: Progress },
  signal: AbortSignal,
): Promise<RequestView> {
  const { clock, progress } = parts;
  const startedAt = clock.elapsed();
  const nodeName = nodeNames(client);
  let silentSince: number | undefined;
  for (;;) {
    try {
      const view = await client.request(id, signal);
      silentSince = undefined;
      if (view.status === 'COMPLETED') return view;
      const { step, text } = waitLine(view, await nodeName(view.runnerId));
      progress.show(step, text);
    } catch (thrown) {
      const failure = asCommandFailure(thrown);
      if (signal.aborted || !mayPass(failure)) throw thrown;
      silentSince ??= clock.elapsed();
      if (clock.elapsed() - silentSince > PATIENCE_MS) throw gaveUp(id, failure);
      progress.show('away', `the coordinator does not answer (${failure.message}); asking again`);
    }
    const fast = clock.elapsed() - startedAt < FAST_FOR_MS;
    await sleep(clock, fast ? FAST_POLL_MS : SLOW_POLL_MS, signal);
  }
}

/** Names of the nodes on which runners are, each asked for once; a name that cannot be had is no failure. */
function nodeNames(client: Client): (runnerId: string | undefined) => Promise<string | undefined> {
  const known = new Map<string, string | undefined>();
  return async (runnerId) => {
    if (runnerId === undefined) return undefined;
    if (!known.has(runnerId)) {
      const runner = await client.runner(runnerId).catch(() => undefined);
      known.set(runnerId, runner?.node?.name);
    }
    return known.get(runnerId);
  };
}

/** It may answer again: it restarts, or is overloaded. */
function mayPass(failure: CommandFailure): boolean {
  return failure.exit === 'unreachable' || failure.exit === 'retry';
}

function gaveUp(id: string, cause: CommandFailure): CommandFailure {
  return new CommandFailure('retry', `lost sight of request ${id}`, {
    code: 'UNAVAILABLE',
    next: `The request is kept. Once the coordinator is back: runmesh requests ${id}`,
    cause,
  });
}
