// Asks an app to stop working on a request: POST to `{path}/cancel` on the same runner with the same request id
// (the fal contract). How the request itself ends is the app's answer; an app without that path is fine.
import { request, type Dispatcher } from 'undici';
import { deadline, type Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { formatHostPort, type HostPort } from '../../shared/host-port.ts';

export interface CancelCall {
  address: HostPort;
  /** Path and query of the request that is cancelled. */
  path: string;
  requestId: string;
}

const TIMEOUT_MS = 10_000;

/** Never rejects: nothing depends on the answer. */
export async function cancelAtRunner(
  call: CancelCall,
  parts: { clock: Clock; dispatcher: Dispatcher },
): Promise<void> {
  const late = new Failure('REQUEST_TIMEOUT', 'the app did not answer the cancel');
  const limit = deadline(parts.clock, TIMEOUT_MS, late);
  const [path = '/'] = call.path.split('?');
  try {
    const answer = await request(
      `http://${formatHostPort(call.address)}${path.replace(/\/$/, '')}/cancel`,
      {
        method: 'POST',
        headers: { 'x-fal-request-id': call.requestId, 'content-length': '0' },
        dispatcher: parts.dispatcher,
        signal: limit.signal,
      },
    );
    await answer.body.dump({ limit: 65_536, signal: limit.signal });
  } catch {
    // The runner ended, or does not answer: the request's own call tells.
  } finally {
    limit.cancel();
  }
}
