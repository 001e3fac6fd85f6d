// Asks a runner's health path until it answers 2xx: that is what makes a runner ready. Nobody listening only means "not
// yet"; the caller's signal ends the waiting.
import { request, type Dispatcher } from 'undici';
import { deadline, sleep, type Clock } from '../../shared/clock.ts';
import { Failure, systemCode } from '../../shared/failure.ts';
import { formatHostPort, type HostPort } from '../../shared/host-port.ts';

export interface HealthCheck {
  address: HostPort;
  path: string;
  method: 'GET' | 'POST';
  timeoutMs: number;
}

/** What the last probe saw, in words, for the message when time runs out. */
export interface HealthWatch {
  last: string;
}

/** A small app listens after some tens of ms: the first pauses are part of its cold start, later ones are not felt. */
const FIRST_PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 500;

/** Resolves at the first 2xx; rejects with the reason of `signal`. */
export async function untilHealthy(
  check: HealthCheck,
  parts: { clock: Clock; dispatcher: Dispatcher; watch: HealthWatch },
  signal: AbortSignal,
): Promise<void> {
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 1.5, LONGEST_PAUSE_MS)) {
    signal.throwIfAborted();
    const answer = await probe(check, parts.clock, parts.dispatcher, signal);
    if (answer === undefined) return;
    parts.watch.last = answer;
    await sleep(parts.clock, pauseMs, signal);
  }
}

/** Undefined when healthy, otherwise what is wrong. */
async function probe(
  check: HealthCheck,
  clock: Clock,
  dispatcher: Dispatcher,
  signal: AbortSignal,
): Promise<string | undefined> {
  const late = new Failure('REQUEST_TIMEOUT', `no answer within ${check.timeoutMs} ms`);
  const limit = deadline(clock, check.timeoutMs, late, signal);
  try {
    // Joined as text: resolved as a URL, `//elsewhere/` would be another host.
    const response = await request(`http://${formatHostPort(check.address)}${check.path}`, {
      method: check.method,
      dispatcher,
      signal: limit.signal,
      // A probe must not keep a connection that the app would rather have for requests.
      reset: true,
    });
    await response.body.dump({ limit: 65_536, signal: limit.signal });
    const isGood = response.statusCode >= 200 && response.statusCode < 300;
    return isGood ? undefined : `${check.path} answers ${response.statusCode}`;
  } catch (thrown) {
    if (signal.aborted) throw signal.reason;
    if (thrown === late) return `${check.path}: ${late.message}`;
    if (systemCode(thrown) === 'ECONNREFUSED')
      return `nobody listens on port ${check.address.port}`;
    return `${check.path}: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  } finally {
    limit.cancel();
  }
}
