// Keeps a link up: dials, and after each end decides when to dial again.
//   E1  Every end is followed by another try; only our own signal stops it.
//   E2  Only a link that held resets the backoff: one that is welcomed and dropped at once is as bad as none.
//   E3  A refusal is tried again slowly, never given up: an operator may mend it on the other side.
import type { Backoff } from '../../shared/backoff.ts';
import { backoffMs } from '../../shared/backoff.ts';
import type { Chance } from '../../shared/chance.ts';
import { sleep, type Clock } from '../../shared/clock.ts';
import type { Log } from '../../shared/log.ts';
import type { LinkEnd } from './dial.ts';

export interface RedialPolicy {
  backoff: Backoff;
  /** A link that stood so long counts as one that held (E2). */
  heldMs: number;
  /** Least pause after a refusal (E3); up to the same again is added by chance. */
  refusedMs: number;
}

export const redialPolicy: RedialPolicy = {
  backoff: { baseMs: 200, capMs: 10_000 },
  heldMs: 10_000,
  refusedMs: 30_000,
};

export interface KeepParts {
  dial: (signal: AbortSignal) => Promise<LinkEnd>;
  clock: Clock;
  chance: Chance;
  log: Log;
  policy?: RedialPolicy;
}

/** Returns when `signal` aborts and the last link has ended. */
export async function keepLinked(parts: KeepParts, signal: AbortSignal): Promise<void> {
  const policy = parts.policy ?? redialPolicy;
  let tries = 0;
  while (!signal.aborted) {
    const end = await parts.dial(signal);
    const next = afterEnd(end, tries, policy, parts.chance);
    if (next === undefined) return;
    tries = next.tries;
    say(parts.log, end, next.waitMs);
    await sleep(parts.clock, next.waitMs, signal).catch(() => undefined);
  }
}

/** How long to wait after `end`, and the tries that count from there; undefined: do not dial again. */
export function afterEnd(
  end: LinkEnd,
  tries: number,
  policy: RedialPolicy,
  chance: Chance,
): { waitMs: number; tries: number } | undefined {
  switch (end.kind) {
    case 'stopped':
      return undefined;
    case 'refused':
      return {
        waitMs: Math.round(policy.refusedMs * (1 + chance.fraction('redial after refusal'))),
        tries: 0,
      };
    case 'served': {
      const from = end.heldMs >= policy.heldMs ? 0 : tries;
      return { waitMs: backoffMs(policy.backoff, from, chance, 'redial'), tries: from + 1 };
    }
    case 'retryable':
      return { waitMs: backoffMs(policy.backoff, tries, chance, 'redial'), tries: tries + 1 };
  }
}

function say(log: Log, end: LinkEnd, waitMs: number): void {
  if (end.kind === 'stopped') return;
  const fields = { code: end.failure.code, reason: end.failure.message, waitMs };
  if (end.kind === 'refused') log.error('the coordinator refuses this agent; trying again', fields);
  else if (end.kind === 'served')
    log.event('agent.unlinked', { ...fields, heldMs: Math.round(end.heldMs) });
  else log.warn('the coordinator cannot be reached; trying again', fields);
}
