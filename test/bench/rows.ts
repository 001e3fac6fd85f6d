// Every row of the bench, in the order in which they run.
import type { Row } from './row.ts';
import { coldStart } from './rows/cold-start.ts';
import { directRun } from './rows/direct-run.ts';
import { durableSubmit } from './rows/durable-submit.ts';

export const rows: readonly Row[] = [directRun, durableSubmit, coldStart];
