// What a runner's life needs from the rest of the agent.
import type { Dispatcher } from 'undici';
import type { Clock } from '../../shared/clock.ts';
import type { Log } from '../../shared/log.ts';
import type { RunnerReport } from '../../shared/protocol.ts';
import type { Driver } from './driver.ts';
import type { EndedLogs } from './ended-logs.ts';
import type { Materials } from './materials.ts';
import type { Pool } from './pool.ts';

export interface LifeParts {
  clock: Clock;
  log: Log;
  driver: Driver;
  materials: Materials;
  pool: Pool;
  logs: EndedLogs;
  /** Connections to runners. */
  dispatcher: Dispatcher;
  /** Hears each change; must not throw. */
  report(report: RunnerReport): void;
}
