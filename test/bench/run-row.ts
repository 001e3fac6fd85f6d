// Runs one row: opens both sides, lets them take turns, looks at the controls, closes everything (B1, B2, B3).
import type { Tools } from '../tools/tools.ts';
import type { Contest, Control, Depth, Figure, Row, Sample } from './row.ts';
import { Stage } from './stage.ts';
import { ratio, spread, type Spread } from './statistics.ts';

export interface FigureResult extends Figure {
  readonly ours: Spread;
  readonly rival: Spread;
  /** Ours by the rival's: below 1 is good where lower is better. */
  readonly ratio: Spread;
  readonly rounds: { readonly ours: readonly number[]; readonly rival: readonly number[] };
}

export interface RowResult {
  readonly name: string;
  readonly measures: string;
  readonly rival: string;
  readonly clock: string;
  readonly load: string;
  readonly rounds: number;
  readonly skipped?: string;
  readonly figures: readonly FigureResult[];
  readonly controls: readonly Control[];
  readonly notes: readonly string[];
}

export interface RunOptions {
  readonly tools: Tools;
  readonly depth: Depth;
  readonly profiles?: string | undefined;
  readonly signal: AbortSignal;
  say(line: string): void;
}

export async function runRow(row: Row, options: RunOptions): Promise<RowResult> {
  const { tools, depth, profiles, signal, say } = options;
  const { name, measures, rival, clock } = row;
  const rounds = row.rounds[depth];
  const about = { name, measures, rival, clock, load: row.load(depth), rounds };
  const skipped = await row.whyNot(tools);
  if (skipped !== false) return { ...about, skipped, figures: [], controls: [], notes: [] };
  await using stage = new Stage(signal, say);
  const contest = await row.open({ stage, tools, depth, profiles, say });
  const { ours, theirs } = await takeTurns(contest, rounds, signal, say);
  const controls = await contest.controls();
  const figures = contest.figures.map((figure) => resultOf(figure, ours, theirs));
  return { ...about, figures, controls, notes: contest.notes?.() ?? [] };
}

async function takeTurns(
  contest: Contest,
  rounds: number,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<{ ours: Sample[]; theirs: Sample[] }> {
  const ours: Sample[] = [];
  const theirs: Sample[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const begunAt = performance.now();
    const turns = [
      async (): Promise<unknown> => ours.push(await contest.ours(round)),
      async (): Promise<unknown> => theirs.push(await contest.rival(round)),
    ];
    for (const turn of round % 2 === 1 ? turns : turns.toReversed()) {
      signal.throwIfAborted();
      await turn();
    }
    say(`round ${round} of ${rounds}: ${((performance.now() - begunAt) / 1000).toFixed(1)} s`);
  }
  return { ours, theirs };
}

function resultOf(
  figure: Figure,
  ours: readonly Sample[],
  theirs: readonly Sample[],
): FigureResult {
  const valuesOf = (samples: readonly Sample[]): number[] =>
    samples.map((sample) => sample[figure.name] ?? Number.NaN);
  const rounds = { ours: valuesOf(ours), rival: valuesOf(theirs) };
  return {
    ...figure,
    ours: spread(rounds.ours),
    rival: spread(rounds.rival),
    ratio: ratio(rounds.ours, rounds.rival),
    rounds,
  };
}
