// What SIGINT and SIGTERM do while a command works: the first asks politely, the second ends the process at once. A
// command that says nothing here keeps the system's own way.
import { exits } from './exit-codes.ts';

export type StopSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

/**
 * Calls `first` at the first signal; at any later one `second` and then leaves. Returns how to go back to normal.
 * A closed terminal (SIGHUP) counts like the others only for programs that asked for it.
 */
export function onInterrupt(
  first: (signal: StopSignal) => void,
  second: () => void,
  signals: readonly StopSignal[] = ['SIGINT', 'SIGTERM'],
): () => void {
  let asked = false;
  const listener = (signal: NodeJS.Signals): void => {
    if (asked) {
      second();
      process.exit(exits.interrupted.code);
    }
    asked = true;
    first(signal as StopSignal);
  };
  for (const signal of signals) process.on(signal, listener);
  return () => {
    for (const signal of signals) process.off(signal, listener);
  };
}
