// All that the core holds in memory: a cache of the disk and of what agents said. Handlers change it in place; nothing
// outside the core sees it.
import type { Chance } from '../../shared/chance.ts';
import type { RequestId, NodeId, RunnerId } from '../../shared/ids.ts';
import type { TokenKey } from '../../shared/token.ts';
import { Agenda } from '../core/agenda.ts';
import type { CallId, LinkId } from '../core/event.ts';
import type { QueueEntry } from '../queue/ready-queue.ts';
import type { Priority } from '../store/keys.ts';
import type { App } from './app.ts';
import type { Node } from './node.ts';
import type { EndedRunner, Runner } from './runner.ts';

/** Times that decide when silence becomes loss (DESIGN §9 Timing). */
export interface Timing {
  heartbeatMs: number;
  lostMs: number;
  /** After our own restart: how long known nodes may take to come back before their attempts run again. */
  restartGraceMs: number;
  /** After our own restart: how long no runner is started while known nodes are still away. */
  holdMs: number;
}

export const defaultTiming: Timing = {
  heartbeatMs: 2_000,
  lostMs: 10_000,
  restartGraceMs: 30_000,
  holdMs: 10_000,
};

/** A queued request that holds a slot. */
export interface FlightLease {
  requestId: RequestId;
  app: string;
  runnerId: RunnerId;
  hold: FlightHold;
}

export type FlightHold =
  /** Taken from its queue; the record is being loaded. Goes back there if the runner goes. */
  | { kind: 'reserved'; entry: QueueEntry; priority: Priority }
  | { kind: 'sent'; epoch: number; number: number; token: string; nodeId: NodeId };

/** A direct call that holds a slot. */
export interface CallLease {
  app: string;
  runnerId: RunnerId;
}

export interface CoreState {
  readonly epoch: number;
  readonly tokenKey: TokenKey;
  readonly chance: Chance;
  readonly timing: Timing;
  readonly apps: Map<string, App>;
  readonly nodes: Map<NodeId, Node>;
  readonly links: Map<LinkId, NodeId>;
  readonly runners: Map<RunnerId, Runner>;
  /** The same runners by where they are; place-of-runner.ts keeps both. */
  readonly byNode: Map<NodeId, Set<Runner>>;
  readonly unplaced: Set<Runner>;
  readonly flights: Map<RequestId, FlightLease>;
  readonly calls: Map<CallId, CallLease>;
  /** Direct calls that wait for a slot, to their app. */
  readonly waitingCalls: Map<CallId, string>;
  readonly agenda: Agenda;
  /** Latest first, bounded. */
  readonly ended: EndedRunner[];
  /** Apps whose dispatch and scale are to be planned again before the step ends. */
  readonly touched: Set<string>;
  /** Most nodes are away at once, as was found a moment ago: until this monotonic ms it is not told again. */
  massLossUntil: number | undefined;
  /** Monotonic ms until which nothing is started after a restart; undefined: no hold. */
  holdUntil: number | undefined;
}

/** Ended runners that are remembered for listings. */
export const ENDED_KEPT = 200;

export function newState(
  fields: Pick<CoreState, 'epoch' | 'tokenKey' | 'chance' | 'timing'>,
): CoreState {
  return {
    ...fields,
    apps: new Map(),
    nodes: new Map(),
    links: new Map(),
    runners: new Map(),
    byNode: new Map(),
    unplaced: new Set(),
    flights: new Map(),
    calls: new Map(),
    waitingCalls: new Map(),
    agenda: new Agenda(),
    ended: [],
    touched: new Set(),
    massLossUntil: undefined,
    holdUntil: undefined,
  };
}
