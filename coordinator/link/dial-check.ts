// Whether the coordinator can reach the HTTP address that an agent advertises: direct calls go only to such nodes. Asked
// after each welcome, and again while the answer is no.
import { request } from 'undici';
import { deadline, type Clock } from '../../shared/clock.ts';
import { asFailure, Failure, systemCode } from '../../shared/failure.ts';

/** Why the agent at `host:port` cannot be dialled; undefined when it can. */
export async function dialProblem(
  address: string,
  timeoutMs: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<string | undefined> {
  const reason = new Failure('UNAVAILABLE', `no answer within ${timeoutMs} ms`);
  const limit = deadline(clock, timeoutMs, reason, signal);
  try {
    const response = await request(`http://${address}/healthz`, {
      signal: limit.signal,
      // A connection of its own: it shall tell about now, and leave nothing behind.
      reset: true,
    });
    await response.body.dump({ limit: 64 * 1024, signal: limit.signal });
    if (response.statusCode === 200) return undefined;
    return `http://${address}/healthz answers ${response.statusCode}`;
  } catch (thrown) {
    const why = systemCode(thrown) ?? asFailure(thrown).message;
    return `cannot dial ${address}: ${why}`;
  } finally {
    limit.cancel();
  }
}
