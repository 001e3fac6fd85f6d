// The coordinator as the API sees it (api/port.ts), over the shell: commands become events, queries are answered by the core,
// and records are read from the store, which holds only what is durable.
import { Failure } from '../../shared/failure.ts';
import {
  partitionOfApp,
  PARTITIONS,
  type RequestId,
  type RevisionId,
  type RunnerId,
} from '../../shared/ids.ts';
import type { Clock } from '../../shared/clock.ts';
import type { Command, CommandName, CoordinatorPort } from '../api/port.ts';
import type { Answers } from '../core/act.ts';
import { Core } from '../core/core.ts';
import type { CallId, Event } from '../core/event.ts';
import type { Queries, QueryName } from '../core/query.ts';
import { answers } from '../core/views.ts';
import type { Links, LogPiece } from '../link/link-port.ts';
import type { PayloadStore } from '../payload/payload-store.ts';
import { nodeOf } from '../state/runner.ts';
import { decodeValue } from '../store/codec.ts';
import { keys, type KeyRange } from '../store/keys.ts';
import type { BodyRest, RequestRecord, RevisionRecord, Terminal } from '../store/records.ts';
import type { Performer } from './performer.ts';
import type { Shell } from './shell.ts';

/** Records of one partition that a filtered listing looks through at most. */
const LIST_SCAN = 10_000;

export class ShellPort implements CoordinatorPort {
  readonly #parts: {
    shell: Shell;
    performer: Performer;
    links: Links;
    payloads: PayloadStore;
    clock: Clock;
  };
  #nextCall = 1;

  constructor(parts: {
    shell: Shell;
    performer: Performer;
    links: Links;
    payloads: PayloadStore;
    clock: Clock;
  }) {
    this.#parts = parts;
  }

  async ask<C extends CommandName>(command: C, fields: Command<C>): Promise<Answers[C]> {
    this.#core();
    const { replyTo, answer } = this.#parts.performer.expect();
    // The fields are those of the event that `command` names: `Command` is derived from it.
    const event: object = { ...fields, type: command, replyTo };
    this.#parts.shell.apply(event as Event);
    return (await answer) as Answers[C];
  }

  newCallId(): CallId {
    return this.#nextCall++;
  }

  callEnded(callId: CallId, refusedByAgent = false): void {
    this.#parts.shell.apply({ type: 'callEnded', callId, refusedByAgent });
  }

  async query<Q extends QueryName>(
    query: Q,
    ask: Queries[Q]['ask'],
  ): Promise<Queries[Q]['answer']> {
    const { clock } = this.#parts;
    return answers[query](this.#core().state, ask, { now: clock.now(), elapsed: clock.elapsed() });
  }

  readRequest(id: RequestId): Promise<RequestRecord | undefined> {
    return this.#read<RequestRecord>(keys.request(id));
  }

  async listRequests(filter: { app?: string; limit: number }): Promise<RequestRecord[]> {
    const partitions =
      filter.app === undefined
        ? Array.from({ length: PARTITIONS }, (_, at) => at)
        : [partitionOfApp(filter.app)];
    const found = await Promise.all(partitions.map((partition) => this.#newest(partition, filter)));
    // Ids sort by time.
    return found
      .flat()
      .sort((a, b) => (a.id < b.id ? 1 : -1))
      .slice(0, filter.limit);
  }

  readRevision(app: string, revision: RevisionId): Promise<RevisionRecord | undefined> {
    return this.#read<RevisionRecord>(keys.revision(app, revision));
  }

  async listRevisions(app: string): Promise<RevisionRecord[]> {
    const range = keys.partition(partitionOfApp(app), 'revision');
    const mine: KeyRange = { gte: `${range.gte}${app}/`, lt: `${range.gte}${app}/\uffff` };
    const found: RevisionRecord[] = [];
    for await (const [key, value] of this.#parts.shell.store.scan(mine, { reverse: true }))
      found.push(decodeValue(key, value) as RevisionRecord);
    return found;
  }

  openOutput(id: RequestId, end: Terminal): Promise<AsyncIterable<Uint8Array>> {
    return this.#body(keys.output(id), end.body);
  }

  openInput(record: RequestRecord): Promise<AsyncIterable<Uint8Array>> {
    return this.#body(keys.input(record.id), record.input);
  }

  watch(id: RequestId, changed: () => void): () => void {
    return this.#parts.performer.watch(id, changed);
  }

  async readLog(
    runnerId: RunnerId,
    offset: number,
    maxBytes: number,
    signal?: AbortSignal,
  ): Promise<LogPiece> {
    const { state } = this.#core();
    const live = state.runners.get(runnerId);
    const nodeId = live
      ? nodeOf(live)
      : state.ended.find((one) => one.runner.id === runnerId)?.node;
    if (!live && !nodeId) throw new Failure('NOT_FOUND', `no runner ${runnerId}`);
    if (!nodeId) throw new Failure('RUNNER_GONE', `runner ${runnerId} is on no node`);
    const linkId = this.#parts.links.linkOf(nodeId);
    if (linkId === undefined)
      throw new Failure('LINK_LOST', `the node of runner ${runnerId} is not connected`);
    return this.#parts.links.readLog(linkId, runnerId, offset, maxBytes, signal);
  }

  ready(): { yes: true } | { yes: false; no: string } {
    const { core } = this.#parts.shell;
    return core instanceof Core ? { yes: true } : { yes: false, no: core.message };
  }

  #core(): Core {
    const { core } = this.#parts.shell;
    if (core instanceof Core) return core;
    throw core;
  }

  async #read<T>(key: string): Promise<T | undefined> {
    return (await this.#parts.shell.read(key)) as T | undefined;
  }

  async #body(key: string, rest: BodyRest): Promise<AsyncIterable<Uint8Array>> {
    if (rest.kind === 'payload') return (await this.#parts.payloads.open(rest.digest)).bytes;
    const bytes = rest.sizeBytes === 0 ? undefined : await this.#read<Uint8Array>(key);
    if (rest.sizeBytes > 0 && !bytes)
      throw new Failure('STORE_CORRUPT', `body ${key} is not there`);
    return once(bytes);
  }

  async #newest(
    partition: number,
    filter: { app?: string; limit: number },
  ): Promise<RequestRecord[]> {
    const found: RequestRecord[] = [];
    const range = keys.partition(partition, 'request');
    for await (const [key, value] of this.#parts.shell.store.scan(range, {
      reverse: true,
      limit: LIST_SCAN,
    })) {
      const record = decodeValue(key, value) as RequestRecord;
      if (filter.app === undefined || record.app === filter.app) found.push(record);
      if (found.length === filter.limit) break;
    }
    return found;
  }
}

async function* once(bytes: Uint8Array | undefined): AsyncGenerator<Uint8Array> {
  if (bytes) yield bytes;
}
