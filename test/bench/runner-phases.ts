// Where a cold start spent its time, read from the coordinator's own log: one `runner.state` line a change, and
// `runner.ended` when it has gone.
import { median } from './statistics.ts';

export interface StateChange {
  readonly runner: string;
  readonly state: string;
  /** Milliseconds since 1970, as the coordinator saw it. */
  readonly atMs: number;
}

/** The changes that a log tells of, in order. */
export function stateChanges(log: string): StateChange[] {
  const found: StateChange[] = [];
  for (const line of log.split('\n')) {
    if (!/"event":"runner\.(state|ended)"/.test(line)) continue;
    const { runner, time, state = 'TERMINATED' } = JSON.parse(line) as Record<string, string>;
    if (runner && time) found.push({ runner, state, atMs: Date.parse(time) });
  }
  return found;
}

/** Milliseconds by phase, `caller → PENDING` first and `IDLE → answer` last; a state that was not entered is left out. */
export function phasesOf(
  changes: readonly StateChange[],
  sentAtMs: number,
  answeredAtMs: number,
): Map<string, number> {
  const phases = new Map<string, number>();
  let before = { name: 'POST', atMs: sentAtMs };
  for (const { state, atMs } of changes) {
    phases.set(`${before.name} → ${state}`, atMs - before.atMs);
    before = { name: state, atMs };
    if (state === 'IDLE') break;
  }
  phases.set(`${before.name} → answer`, answeredAtMs - before.atMs);
  return phases;
}

/** One line: the median of each phase that all rounds have in common by name. */
export function describePhases(rounds: readonly ReadonlyMap<string, number>[]): string {
  const names = [...new Set(rounds.flatMap((phases) => [...phases.keys()]))];
  return names
    .map((name) => {
      const values = rounds.flatMap((phases) => phases.get(name) ?? []);
      return `${name} ${median(values).toFixed(0)} ms`;
    })
    .join(', ');
}
