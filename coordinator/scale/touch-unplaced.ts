// Runners without a node are tried again when a node joins, a runner goes or GPUs change.
import type { Turn } from '../core/turn.ts';

/** Something changed that may give an unplaced runner its place: plan those apps again. */
export function touchUnplaced(turn: Turn): void {
  for (const { app } of turn.state.unplaced) turn.touch(app);
}
