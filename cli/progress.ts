// Tells a person how far something is, on stderr. On a terminal one line is drawn over and over; into a pipe or a log
// each step becomes one line of its own, and a step that only counts on is not repeated.
import type { Clock } from '../shared/clock.ts';
import { durationText } from './quantity.ts';
import { cutToWidth, withoutControls, type Terminal } from './terminal.ts';

export interface Progress {
  /** `step` names what is being done: a pipe gets a line only when it changes. */
  show(step: string, text: string): void;
  /** A line that stays. */
  note(text: string): void;
  /** Takes the live line away. */
  end(): void;
}

/** Progress with the time since it was opened in front. */
export function openProgress(terminal: Terminal, clock: Clock): Progress {
  const startedAt = clock.elapsed();
  let lastStep: string | undefined;
  let drawn = false;
  const line = (text: string): string =>
    `${durationText(clock.elapsed() - startedAt).padStart(8)}  ${withoutControls(text).replaceAll('\n', ' ')}`;
  const erase = (): void => {
    if (drawn) terminal.error('\r\u001b[2K');
    drawn = false;
  };
  return {
    show(step, text) {
      if (terminal.errorTty) {
        terminal.error(`\r\u001b[2K${cutToWidth(line(text), terminal.errorColumns - 1)}`);
        drawn = true;
      } else if (step !== lastStep) {
        terminal.error(`${line(text)}\n`);
      }
      lastStep = step;
    },
    note(text) {
      erase();
      terminal.error(`${line(text)}\n`);
    },
    end: erase,
  };
}
