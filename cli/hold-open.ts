// Keeps the process alive while a command works. Timers of `Clock` never do that by themselves, and a command that
// waits between two polls, or for a killed runner to be gone, has nothing else open: without this Node would leave in
// the middle, with exit code 13.
import { MessageChannel } from 'node:worker_threads';

/** Until the returned function is called, the process does not end by running out of things to do. */
export function holdOpen(): () => void {
  const { port1 } = new MessageChannel();
  port1.on('message', () => undefined);
  return () => port1.close();
}
