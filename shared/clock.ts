// Time as an argument. Product code never reads the machine's clock or starts a timer by itself: it is
// handed a `Clock`, so that tests and the simulator own time. This file and chance.ts are the only
// places that touch the machine's own.

/** A timer that was started; `cancel` is safe to call at any moment and any number of times. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall time, milliseconds since 1970 UTC. For records and for people; it may jump. */
  now(): number;
  /** Monotonic milliseconds from an arbitrary start. For every duration and deadline in one process. */
  elapsed(): number;
  /** Calls `fire` once, `delayMs` from now. A pending timer does not keep the process alive. */
  after(delayMs: number, fire: () => void): Timer;
}

/** The longest delay that Node's timers take; a longer one would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after(delayMs, fire) {
    const timer = setTimeout(fire, Math.min(Math.max(0, delayMs), LONGEST_TIMER_MS));
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

/** Resolves after `delayMs`; rejects with the signal's reason as soon as it is aborted. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = (): void => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** A signal that aborts with `reason` after `delayMs`, or as soon as `parent` aborts; `cancel` frees its timer. */
export function deadline(
  clock: Clock,
  delayMs: number,
  reason: Error,
  parent?: AbortSignal,
): { signal: AbortSignal; cancel: () => void } {
  const controller = new AbortController();
  const timer = clock.after(delayMs, () => controller.abort(reason));
  const signal = parent ? AbortSignal.any([parent, controller.signal]) : controller.signal;
  return { signal, cancel: () => timer.cancel() };
}
