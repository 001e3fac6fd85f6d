// Asks a server until it gives the wanted answer: the same loop, at the same pace, wherever a row has to poll.
import { setTimeout as pause } from 'node:timers/promises';
import { request } from 'undici';

export const POLL_MS = 2;
const WITHIN_MS = 30_000;

/** Each try has a connection of its own. `look` is called before each and may throw. */
export async function untilAnswered(
  url: string,
  expect: string,
  signal: AbortSignal,
  look: () => void,
): Promise<void> {
  const until = performance.now() + WITHIN_MS;
  for (;;) {
    signal.throwIfAborted();
    look();
    if ((await answerOf(url)) === expect) return;
    if (performance.now() > until) throw new Error(`no answer from ${url} in ${WITHIN_MS} ms`);
    await pause(POLL_MS, undefined, { signal });
  }
}

/** The text of a 200; undefined when there is none yet. */
async function answerOf(url: string): Promise<string | undefined> {
  try {
    const { statusCode, body } = await request(url, { reset: true });
    const text = await body.text();
    return statusCode === 200 ? text : undefined;
  } catch {
    return undefined;
  }
}
