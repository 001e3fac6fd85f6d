// What `coordinator`, `agent` and `dev` share: run until told to stop, stop in order within a deadline, and say what
// went wrong. systemd runs them as Type=exec, so there is nobody to notify.
import type { Clock } from '../shared/clock.ts';
import { AlreadyTold } from './command-failure.ts';
import { onInterrupt, type StopSignal } from './interrupts.ts';

/** A program that serves. */
export interface Serving {
  stop(): Promise<void>;
}

export interface StopOptions {
  clock: Clock;
  /** After it the process ends although something still hangs. */
  stopWithinMs: number;
  onStop?: (signal: StopSignal) => void;
  /** Something did not end in time. */
  onLate: () => void;
}

/** Waits for SIGINT or SIGTERM, then stops `serving`; a second signal ends the process at once. */
export async function serveUntilStopped(serving: Serving, options: StopOptions): Promise<void> {
  const { promise: asked, resolve: ask } = Promise.withResolvers<StopSignal>();
  const forget = onInterrupt(ask, () => undefined, ['SIGINT', 'SIGTERM']);
  try {
    // Awaited by itself: arguments of an optional call are not evaluated when nobody listens.
    const signal = await asked;
    options.onStop?.(signal);
    const late = Promise.withResolvers<'late'>();
    const timer = options.clock.after(options.stopWithinMs, () => late.resolve('late'));
    const end = await Promise.race([serving.stop().then(() => 'stopped' as const), late.promise]);
    timer.cancel();
    if (end === 'stopped') return;
    options.onLate();
    throw new AlreadyTold('failed');
  } finally {
    forget();
  }
}
