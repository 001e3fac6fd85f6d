// What a row of the bench is: one thing that runmesh does, beside a rival that does the same work in the same run.
//
//   B1  Ours and the rival take turns, round by round, and who begins changes: a machine that grows slower hits both.
//   B2  A figure counts only if the row's controls pass: each says what must be seen for the figure to mean anything.
//   B3  Whatever a row starts belongs to its `Stage`, and is gone when the row is over, also after Ctrl-C.
import type { Tools } from '../tools/tools.ts';
import type { Stage } from './stage.ts';

/** How much work: all of it, less, or the least that shows that the row still works. */
export const depths = ['full', 'quick', 'smoke'] as const;
export type Depth = (typeof depths)[number];

/** One number that is measured on both sides, once a round. */
export interface Figure {
  readonly name: string;
  readonly unit: 'ms' | 'us' | '1/s' | '';
  readonly better: 'lower' | 'higher';
}

/** What one side measured in one round, by the figure's name. */
export type Sample = Readonly<Record<string, number>>;

/** Something that must be so for the figures to mean anything (B2). */
export interface Control {
  readonly name: string;
  readonly expected: string;
  readonly observed: string;
  readonly passed: boolean;
}

/** Both sides, ready to run. */
export interface Contest {
  readonly figures: readonly Figure[];
  /** Runs one round. Throws when an answer was wrong: a wrong answer has no duration. */
  ours(round: number): Promise<Sample>;
  rival(round: number): Promise<Sample>;
  /** Looks, after the rounds, whether they measured what they claim. */
  controls(): Promise<readonly Control[]>;
  /** Further lines for people, such as where our time went. */
  notes?(): readonly string[];
}

/** What a row gets to work with. */
export interface RowParts {
  readonly stage: Stage;
  readonly tools: Tools;
  readonly depth: Depth;
  /** A folder for CPU profiles of our programs; they run slower then. */
  readonly profiles: string | undefined;
  say(line: string): void;
}

export interface Row {
  readonly name: string;
  /** What is measured. */
  readonly measures: string;
  readonly rival: string;
  /** Where the clock starts and stops. */
  readonly clock: string;
  readonly load: (depth: Depth) => string;
  readonly rounds: Readonly<Record<Depth, number>>;
  /** Why it cannot run here; false when it can. */
  readonly whyNot: (tools: Tools) => Promise<string | false>;
  readonly open: (parts: RowParts) => Promise<Contest>;
}
