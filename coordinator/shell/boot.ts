// From disk to a core: reads what the core keeps in memory, and nothing else. Runners are not on disk: agents say what runs.
// Attempts that were in flight are left alone until their agent is back or had its time (survival §2.6).
import type { Chance } from '../../shared/chance.ts';
import type { Clock } from '../../shared/clock.ts';
import { asFailure, Failure } from '../../shared/failure.ts';
import { PARTITIONS, type NodeId, type RequestId } from '../../shared/ids.ts';
import type { TokenKey } from '../../shared/token.ts';
import { Core } from '../core/core.ts';
import { attemptToken } from '../../shared/token.ts';
import { ReadyQueue, WINDOW, type QueueEntry } from '../queue/ready-queue.ts';
import { newApp, type App } from '../state/app.ts';
import { notShy } from '../dispatch/shyness.ts';
import { newState, type CoreState, type Timing } from '../state/core-state.ts';
import { decodeValue, encodeValue } from '../store/codec.ts';
import { keys, lastPart, type Priority } from '../store/keys.ts';
import type {
  AppRecord,
  MetaRecord,
  NodeRecord,
  RequestRecord,
  RevisionRecord,
} from '../store/records.ts';
import type { Store } from '../store/store.ts';

export interface BootParts {
  store: Store;
  clock: Clock;
  chance: Chance;
  timing: Timing;
  /** Names this coordinator in the owner records, for people. */
  holder: string;
}

const ALL = Array.from({ length: PARTITIONS }, (_, partition) => partition);

/** @throws Failure STORE_TOO_NEW, STORE_CORRUPT, STORE_FAILED */
export async function boot(parts: BootParts): Promise<Core> {
  const { store, clock } = parts;
  const epoch = await store.acquire(ALL, parts.holder, clock.now());
  const tokenKey = await readMeta(parts, epoch);
  const state = newState({ epoch, tokenKey, chance: parts.chance, timing: parts.timing });
  await loadApps(store, state);
  await loadNodes(parts, state);
  await loadQueues(store, state);
  await loadFlights(parts, state);
  await loadDue(parts, state);
  for (const app of state.apps.keys()) state.touched.add(app);
  return new Core(state);
}

async function read<T>(store: Store, key: string): Promise<T | undefined> {
  const bytes = await store.get(key);
  return bytes ? (decodeValue(key, bytes) as T) : undefined;
}

/** Checks the format, or writes it into a new database, with the key of all tokens. */
async function readMeta(parts: BootParts, epoch: number): Promise<TokenKey> {
  const { store, chance } = parts;
  const meta = await read<MetaRecord>(store, keys.meta());
  const tokenKey = await read<Uint8Array>(store, keys.tokenKey());
  if (meta && meta.format !== 1)
    throw new Failure(
      'STORE_TOO_NEW',
      `the data has format ${String(meta.format)}, this program knows 1`,
    );
  if (meta && meta.partitions !== PARTITIONS)
    throw new Failure(
      'STORE_TOO_NEW',
      `the data has ${meta.partitions} partitions, this program knows ${PARTITIONS}`,
    );
  if (meta && tokenKey) return tokenKey;
  const fresh = chance.bytes(32, 'token key');
  const record: MetaRecord = { format: 1, partitions: PARTITIONS };
  const operations = [
    { kind: 'put', key: keys.meta(), value: encodeValue(record) },
    { kind: 'put', key: keys.tokenKey(), value: encodeValue(fresh) },
  ] as const;
  await store.commit([{ partition: undefined, epoch, operations }], 'sync');
  return fresh;
}

async function loadApps(store: Store, state: CoreState): Promise<void> {
  for (const partition of ALL) {
    for await (const [key, value] of store.scan(keys.partition(partition, 'app'))) {
      const record = decodeValue(key, value) as AppRecord;
      const revision = await read<RevisionRecord>(store, keys.revision(record.app, record.current));
      if (!revision)
        throw new Failure('STORE_CORRUPT', `app ${record.app} has lost revision ${record.current}`);
      const app = newApp(record, revision);
      app.sequence = (await read<number>(store, keys.sequence(record.app))) ?? 0;
      state.apps.set(record.app, app);
    }
  }
}

async function loadNodes({ store, clock, timing }: BootParts, state: CoreState): Promise<void> {
  const lostAt = clock.elapsed() + timing.restartGraceMs;
  for await (const [key, value] of store.scan(keys.nodes())) {
    const record = decodeValue(key, value) as NodeRecord;
    // One that was away for long before we stopped is not waited for.
    const recent = record.isLinked === true || clock.now() - record.lastSeenAt < 24 * 3_600_000;
    state.nodes.set(record.nodeId, {
      record,
      link: { kind: 'away', since: clock.elapsed(), lostAt: recent ? lostAt : undefined },
      facts: undefined,
      images: new Set(),
      full: notShy,
    });
    if (recent) state.agenda.set(`node:${record.nodeId}`, lostAt);
  }
  if (
    [...state.nodes.values()].some(
      (node) => node.link.kind === 'away' && node.link.lostAt !== undefined,
    )
  ) {
    state.holdUntil = clock.elapsed() + timing.holdMs;
    state.agenda.set('hold', state.holdUntil);
  }
}

async function loadQueues(store: Store, state: CoreState): Promise<void> {
  for (const [name, app] of state.apps) {
    app.ready = [await loadQueue(store, name, 0), await loadQueue(store, name, 1)];
    const last = await lastSequence(store, name, app);
    app.sequence = Math.max(app.sequence, last);
  }
}

async function loadQueue(store: Store, app: string, priority: Priority): Promise<ReadyQueue> {
  const head: QueueEntry[] = [];
  let depth = 0;
  for await (const [key, value] of store.scan(keys.readyOf(app, priority))) {
    if (head.length < WINDOW) head.push(readyEntry(key, value));
    depth += 1;
  }
  return new ReadyQueue(depth, head);
}

export function readyEntry(key: string, value: Uint8Array): QueueEntry {
  return {
    sequence: Number.parseInt(lastPart(key), 16),
    requestId: decodeValue(key, value) as RequestId,
  };
}

/** The sequence is written with each submit; the queue's own tail is the second witness. */
async function lastSequence(store: Store, name: string, app: App): Promise<number> {
  let last = app.sequence;
  for (const priority of [0, 1] as const)
    for await (const [key] of store.scan(keys.readyOf(name, priority), { limit: 1, reverse: true }))
      last = Math.max(last, Number.parseInt(lastPart(key), 16));
  return last;
}

async function loadFlights({ store, clock, timing }: BootParts, state: CoreState): Promise<void> {
  for (const partition of ALL) {
    for await (const [key] of store.scan(keys.partition(partition, 'flight'))) {
      const requestId = lastPart(key) as RequestId;
      const record = await readIfSound(store, requestId);
      if (record?.state.kind !== 'flight') continue;
      const { flight } = record.state;
      const { epoch, number, nonce, nodeId } = flight;
      const token = attemptToken(state.tokenKey, { partition, epoch, requestId, number, nonce });
      state.flights.set(requestId, {
        requestId,
        app: record.app,
        runnerId: flight.runnerId,
        hold: { kind: 'sent', epoch, number, token, nodeId },
      });
      const app = state.apps.get(record.app);
      if (app) app.inFlight += 1;
      awaitNode(state, nodeId, clock.elapsed(), timing);
    }
  }
}

/** One damaged record must not keep the coordinator from starting: whoever asks for it is told. */
async function readIfSound(store: Store, id: RequestId): Promise<RequestRecord | undefined> {
  try {
    return await read<RequestRecord>(store, keys.request(id));
  } catch (thrown) {
    if (asFailure(thrown).code === 'STORE_CORRUPT') return undefined;
    throw thrown;
  }
}

/** A node with attempts in flight is waited for, also when its record is old or was never written. */
function awaitNode(state: CoreState, nodeId: NodeId, now: number, timing: Timing): void {
  const known = state.nodes.get(nodeId);
  if (known?.link.kind === 'away' && known.link.lostAt !== undefined) return;
  const lostAt = now + timing.restartGraceMs;
  const record: NodeRecord = known?.record ?? {
    nodeId,
    name: nodeId,
    incarnation: 0,
    firstSeenAt: 0,
    lastSeenAt: 0,
  };
  state.nodes.set(nodeId, {
    record,
    link: { kind: 'away', since: now, lostAt },
    facts: undefined,
    images: new Set(),
    full: notShy,
  });
  state.agenda.set(`node:${nodeId}`, lostAt);
}

async function loadDue({ store, clock }: BootParts, state: CoreState): Promise<void> {
  for (const partition of ALL) {
    for await (const [key, value] of store.scan(keys.partition(partition, 'due'))) {
      const [, , kind, id] = key.split('/');
      const dueAt = decodeValue(key, value) as number;
      const leftMs = Math.max(0, dueAt - clock.now());
      state.agenda.set(`${kind ?? ''}:${id ?? ''}`, clock.elapsed() + leftMs);
    }
  }
}
