// A small coordinator behind CoordinatorPort, for tests of the HTTP edge: a real FIFO queue in memory that runs requests
// through a function, and direct calls granted from a list of runners. It keeps the promises of port.ts: answers come
// later than the question, records change only through it, `watch` calls after each change.
import type { Answers } from '../../coordinator/core/act.ts';
import type { CallId } from '../../coordinator/core/event.ts';
import type { Queries, QueryName } from '../../coordinator/core/query.ts';
import type { Command, CommandName, CoordinatorPort } from '../../coordinator/api/port.ts';
import type { RequestRecord, RevisionRecord, Terminal } from '../../coordinator/store/records.ts';
import type { PayloadStore } from '../../coordinator/payload/payload-store.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { Failure, failures, type FailureCode } from '../../shared/failure.ts';
import {
  newRequestId,
  newRevisionId,
  newRunnerId,
  newNodeId,
  partitionOfApp,
  type RequestId,
} from '../../shared/ids.ts';
import type { Headers } from '../../shared/protocol.ts';

export interface AppAnswer {
  status: number;
  headers?: Headers;
  body: string;
}

export type FakeApp = (record: RequestRecord, input: Uint8Array) => Promise<AppAnswer>;

type CallAnswer = Answers['call'];

const now = (): number => systemClock.now();

export class FakePort implements CoordinatorPort {
  readonly runnerId = newRunnerId(now(), systemChance);
  readonly nodeId = newNodeId(now(), systemChance);
  readonly revision = newRevisionId(now(), systemChance);
  readonly apps = new Map<string, FakeApp>();
  readonly records = new Map<RequestId, RequestRecord>();
  readonly inputs = new Map<RequestId, Uint8Array>();
  readonly outputs = new Map<RequestId, Uint8Array>();
  readonly deploys: Command<'deploy'>[] = [];
  /** Call ids by what became of them: each is ended once at most, or the test fails. */
  readonly open = new Set<CallId>();
  readonly ended: { callId: CallId; refused: boolean }[] = [];
  /** Where the next direct calls go; empty: they wait. */
  addresses: string[] = [];
  requestTimeoutMs = 60_000;
  readyAnswer: ReturnType<CoordinatorPort['ready']> = { yes: true };
  /** Requests stay in the queue while set. */
  held = false;
  log = new TextEncoder().encode('first line\nsecond line\n');
  failNext: Failure | undefined;
  readonly #payloads: PayloadStore;
  readonly #watchers = new Map<RequestId, Set<() => void>>();
  readonly #waiting = new Map<CallId, (answer: CallAnswer) => void>();
  #sequence = 0;
  #calls = 0;
  #running = 0;

  constructor(payloads: PayloadStore) {
    this.#payloads = payloads;
  }

  get waitingCalls(): number {
    return this.#waiting.size;
  }

  get watchers(): number {
    return [...this.#watchers.values()].reduce((sum, set) => sum + set.size, 0);
  }

  async ask<C extends CommandName>(command: C, fields: Command<C>): Promise<Answers[C]> {
    await Promise.resolve();
    if (this.failNext) {
      const failure = this.failNext;
      this.failNext = undefined;
      throw failure;
    }
    const answers: { [N in CommandName]: (of: never) => Promise<Answers[N]> } = {
      submit: (of: Command<'submit'>) => this.#submit(of),
      cancel: async (of: Command<'cancel'>) => this.#cancel(of),
      call: (of: Command<'call'>) => this.#call(of),
      deploy: async (of: Command<'deploy'>) => {
        this.deploys.push(of);
        const { app } = of.spec;
        return { app, revision: this.revision, number: this.deploys.length, inactive: [] };
      },
      stopRunner: async (of: Command<'stopRunner'>) =>
        of.runnerId === this.runnerId ? 'stopping' : 'not_found',
    };
    return answers[command](fields as never);
  }

  newCallId(): CallId {
    this.#calls += 1;
    return this.#calls;
  }

  callEnded(callId: CallId, refused = false): void {
    if (this.ended.some((each) => each.callId === callId))
      throw new Error(`call ${callId} ended twice`);
    this.ended.push({ callId, refused });
    this.open.delete(callId);
    this.#waiting.get(callId)?.({ refused: 'CLIENT_DISCONNECTED', message: 'gone' });
    this.#waiting.delete(callId);
  }

  async query<Q extends QueryName>(
    query: Q,
    ask: Queries[Q]['ask'],
  ): Promise<Queries[Q]['answer']> {
    await Promise.resolve();
    const answers: { [N in QueryName]: (of: never) => Queries[N]['answer'] } = {
      apps: () => [],
      app: () => undefined,
      runners: () => [
        {
          id: this.runnerId,
          app: 'acme/echo',
          revision: this.revision,
          state: 'IDLE',
          slots: 1,
          inFlight: 0,
          requests: [],
          gpus: [],
          states: [{ state: 'IDLE', at: now() }],
        },
      ],
      nodes: () => [],
      position: (of: Queries['position']['ask']) => ({
        position: [...this.records.values()].filter(
          (each) => each.state.kind === 'ready' && each.sequence < of.sequence,
        ).length,
        waiting: { code: 'runners_busy', text: 'every runner is busy' },
      }),
      counts: () => ({
        apps: [{ app: 'acme/echo', queued: 1, inFlight: 2, runners: { IDLE: 3 } }],
        nodes: { ready: 1, suspect: 0, lost: 0, away: 0 },
        linksUp: 1,
        epoch: 7,
      }),
    };
    return answers[query](ask as never);
  }

  async readRequest(id: RequestId): Promise<RequestRecord | undefined> {
    await Promise.resolve();
    const record = this.records.get(id);
    return record && structuredClone(record);
  }

  async listRequests(filter: { app?: string; limit: number }): Promise<RequestRecord[]> {
    return [...this.records.values()]
      .filter((each) => filter.app === undefined || each.app === filter.app)
      .reverse()
      .slice(0, filter.limit);
  }

  async readRevision(): Promise<RevisionRecord | undefined> {
    return undefined;
  }

  async listRevisions(): Promise<RevisionRecord[]> {
    return [];
  }

  async openOutput(id: RequestId): Promise<AsyncIterable<Uint8Array>> {
    return bytesOf(this.outputs.get(id) ?? new Uint8Array());
  }

  async openInput({ id }: RequestRecord): Promise<AsyncIterable<Uint8Array>> {
    return bytesOf(this.inputs.get(id) ?? new Uint8Array());
  }

  watch(id: RequestId, changed: () => void): () => void {
    const set = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, set.add(changed));
    return () => set.delete(changed);
  }

  async readLog(
    _runnerId: string,
    offset: number,
    maxBytes: number,
  ): Promise<{ offset: number; bytes: Uint8Array; end: number; ended: boolean }> {
    const end = this.log.byteLength;
    return {
      offset,
      bytes: this.log.subarray(offset, offset + Math.min(maxBytes, 8)),
      end,
      ended: true,
    };
  }

  ready(): ReturnType<CoordinatorPort['ready']> {
    return this.readyAnswer;
  }

  /** Lets held requests run. */
  release(): void {
    this.held = false;
    this.#pump();
  }

  async #submit(of: Command<'submit'>): Promise<Answers['submit']> {
    const { app, maxQueueLength, input, ...kept } = of;
    if (!this.apps.has(app)) return { refused: 'NOT_FOUND', message: 'no such app' };
    const queued = [...this.records.values()].filter((each) => each.state.kind === 'ready').length;
    if (maxQueueLength !== undefined && queued > maxQueueLength)
      return { refused: 'QUEUE_FULL', message: `more than ${maxQueueLength} requests wait` };
    const id = newRequestId(now(), partitionOfApp(app), systemChance);
    const bytes = input.kind === 'inline' ? input.bytes : await this.#payload(input.digest);
    this.#sequence += 1;
    this.inputs.set(id, bytes);
    this.records.set(id, {
      ...kept,
      id,
      app,
      revision: this.revision,
      sequence: this.#sequence,
      input:
        input.kind === 'inline' ? { kind: 'inline', sizeBytes: bytes.byteLength } : { ...input },
      submittedAt: now(),
      attempts: 0,
      dispatches: 0,
      state: { kind: 'ready' },
    });
    setImmediate(() => this.#pump());
    return { requestId: id, position: queued };
  }

  async #payload(digest: Parameters<PayloadStore['open']>[0]): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of (await this.#payloads.open(digest)).bytes) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  #cancel({ requestId, app }: Command<'cancel'>): Answers['cancel'] {
    const record = this.records.get(requestId);
    if (record?.app !== app) return 'not_found';
    if (record.state.kind === 'done') return 'already_completed';
    if (record.state.kind === 'ready') this.#fail(record, 'CLIENT_CANCELLED');
    record.cancelRequestedAt = now();
    return 'requested';
  }

  async #call({ callId, app, startTimeoutMs }: Command<'call'>): Promise<CallAnswer> {
    if (!this.apps.has(app)) return { refused: 'NOT_FOUND', message: 'no such app' };
    const address = this.addresses.shift();
    if (address !== undefined) return this.#grant(callId, address);
    return new Promise((resolve) => {
      this.#waiting.set(callId, resolve);
      if (startTimeoutMs !== undefined)
        systemClock.after(startTimeoutMs, () => {
          this.#waiting.delete(callId);
          resolve({ refused: 'START_TIMEOUT', message: 'Request timed out' });
        });
    });
  }

  /** Gives a slot to the oldest waiting call. */
  grantWaiting(address: string): void {
    const [oldest] = this.#waiting;
    if (!oldest) throw new Error('no call waits');
    this.#waiting.delete(oldest[0]);
    oldest[1](this.#grant(oldest[0], address));
  }

  #grant(callId: CallId, address: string): CallAnswer {
    this.open.add(callId);
    const { runnerId, nodeId, requestTimeoutMs } = this;
    return { runnerId, nodeId, address, lease: `lease-${callId}`, requestTimeoutMs };
  }

  #pump(): void {
    if (this.held || this.#running > 0) return;
    const next = [...this.records.values()]
      .filter((each) => each.state.kind === 'ready')
      .sort((a, b) => a.priority - b.priority || a.sequence - b.sequence)[0];
    if (next) void this.#run(next);
  }

  async #run(record: RequestRecord): Promise<void> {
    this.#running += 1;
    const { runnerId, nodeId } = this;
    const flight = { epoch: 1, number: 1, nonce: '0'.repeat(16), runnerId, nodeId };
    record.state = { kind: 'flight', flight: { ...flight, startedAt: now() } };
    this.#changed(record.id);
    const input = this.inputs.get(record.id) ?? new Uint8Array();
    const startedAt = now();
    const answer = await this.apps.get(record.app)?.(structuredClone(record), input);
    if (answer) {
      const bytes = Buffer.from(answer.body);
      this.outputs.set(record.id, bytes);
      this.#end(record, {
        status: answer.status,
        headers: answer.headers ?? [['content-type', 'application/json']],
        body: { kind: 'inline', sizeBytes: bytes.byteLength },
        at: now(),
        durationMs: now() - startedAt,
        runnerId,
        nodeId,
      });
    }
    this.#running -= 1;
    this.#pump();
  }

  #fail(record: RequestRecord, code: FailureCode): void {
    this.#end(record, {
      status: failures[code].status,
      headers: [],
      body: { kind: 'inline', sizeBytes: 0 },
      failure: { code, message: failures[code].doc },
      at: now(),
    });
  }

  /** Ends a request as the platform would. */
  failRequest(id: RequestId, code: FailureCode): void {
    const record = this.records.get(id);
    if (record) this.#fail(record, code);
  }

  #end(record: RequestRecord, end: Terminal): void {
    record.state = { kind: 'done', end };
    this.#changed(record.id);
  }

  #changed(id: RequestId): void {
    for (const changed of this.#watchers.get(id) ?? []) changed();
  }
}

async function* bytesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
