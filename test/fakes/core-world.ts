// A coordinator's shell and core over a store, with agents that a test plays by hand: what the core sends is recorded, what an
// agent would answer is given as events. Time is manual. This is the small brother of a simulator.
import { seededChance } from '../../shared/chance.ts';
import type { AppFile } from '../../shared/app-spec.ts';
import { appSpec } from '../../shared/app-spec.ts';
import { newNodeId, type NodeId, type RequestId, type RunnerId } from '../../shared/ids.ts';
import type { Body, Message, Outcome, RunnerReport } from '../../shared/protocol.ts';
import { readAttemptToken } from '../../shared/token.ts';
import type { Act, Answers } from '../../coordinator/core/act.ts';
import { Core } from '../../coordinator/core/core.ts';
import type { Event } from '../../coordinator/core/event.ts';
import type { Command, CommandName } from '../../coordinator/api/port.ts';
import { answers } from '../../coordinator/core/views.ts';
import type { Queries, QueryName } from '../../coordinator/core/query.ts';
import { Shell } from '../../coordinator/shell/shell.ts';
import { defaultTiming } from '../../coordinator/state/core-state.ts';
import { decodeValue } from '../../coordinator/store/codec.ts';
import { keys } from '../../coordinator/store/keys.ts';
import type { RequestRecord } from '../../coordinator/store/records.ts';
import type { Store } from '../../coordinator/store/store.ts';
import { ManualClock } from './manual-clock.ts';

type Sent = { linkId: number; message: Message<'coordinator'>; inputOf?: RequestId };

export class CoreWorld {
  readonly clock = new ManualClock();
  readonly sent: Sent[] = [];
  readonly acts: Act[] = [];
  readonly chance = seededChance(1);
  readonly shell: Shell;
  lost = 0;
  lives = 0;
  #replies = new Map<number, { done: (answer: never) => void; failed: (failure: Error) => void }>();
  #nextReply = 1;
  #nextLink = 1;

  constructor(openStore: () => Promise<Store>) {
    this.shell = new Shell({
      openStore,
      clock: this.clock,
      chance: this.chance,
      timing: defaultTiming,
      holder: 'test',
      effects: {
        perform: (act) => this.#perform(act),
        lost: (failure) => {
          this.lost += 1;
          for (const waiting of this.#replies.values()) waiting.failed(failure);
          this.#replies.clear();
        },
        live: () => {
          this.lives += 1;
        },
        committed: () => undefined,
      },
    });
  }

  get core(): Core {
    const core = this.shell.core;
    if (!(core instanceof Core)) throw core;
    return core;
  }

  ask<C extends CommandName>(command: C, fields: Command<C>): Promise<Answers[C]> {
    const replyTo = this.#nextReply++;
    return new Promise((done, failed) => {
      this.#replies.set(replyTo, { done: done as (answer: never) => void, failed });
      const event: object = { ...fields, type: command, replyTo };
      this.shell.apply(event as Event);
    });
  }

  async deploy(file: Partial<AppFile> = {}): Promise<string> {
    const spec = appSpec.parse({ app: 'acme/cutout', image: 'demo:1', ...file });
    await this.ask('deploy', { spec, imageDigest: `sha256:${'a'.repeat(64)}` });
    return spec.app;
  }

  async submit(app = 'acme/cutout', fields: Partial<Command<'submit'>> = {}): Promise<RequestId> {
    const answer = await this.ask('submit', {
      app,
      method: 'POST',
      path: '/',
      query: '',
      headers: [],
      input: { kind: 'inline', bytes: Buffer.from('{}') },
      priority: 0,
      noRetry: false,
      ...fields,
    });
    if ('refused' in answer) throw new Error(answer.refused);
    return answer.requestId;
  }

  query<Q extends QueryName>(query: Q, ask: Queries[Q]['ask']): Queries[Q]['answer'] {
    return answers[query](this.core.state, ask, {
      now: this.clock.now(),
      elapsed: this.clock.elapsed(),
    });
  }

  async record(id: RequestId): Promise<RequestRecord> {
    const key = keys.request(id);
    const bytes = await this.shell.store.get(key);
    if (!bytes) throw new Error(`no record of ${id}`);
    return decodeValue(key, bytes) as RequestRecord;
  }

  /** Lets every promise that can settle do so; real disks get real time. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 40; turn += 1) await new Promise((done) => setImmediate(done));
  }

  async move(byMs: number): Promise<void> {
    this.clock.move(byMs);
    await this.settle();
  }

  async agent(name: string, fields: Partial<Body<'hello'>> = {}): Promise<FakeAgent> {
    const agent = new FakeAgent(this, newNodeId(this.clock.now(), this.chance), name);
    await agent.hello(fields);
    return agent;
  }

  newLinkId(): number {
    return this.#nextLink++;
  }

  #perform(act: Act): void {
    this.acts.push(act);
    if (act.act === 'send')
      this.sent.push({
        linkId: act.linkId,
        message: act.message,
        ...(act.inputOf ? { inputOf: act.inputOf } : {}),
      });
    if (act.act === 'reply') {
      this.#replies.get(act.to)?.done(act.answer as never);
      this.#replies.delete(act.to);
    }
    if (act.act === 'lease') {
      this.#replies.get(act.to)?.done({ ...act.answer, lease: act.leaseId } as never);
      this.#replies.delete(act.to);
    }
  }
}

/** An agent that does what its test says. */
export class FakeAgent {
  readonly world: CoreWorld;
  readonly nodeId: NodeId;
  readonly name: string;
  linkId = 0;
  readonly runners = new Map<RunnerId, RunnerReport>();

  constructor(world: CoreWorld, nodeId: NodeId, name: string) {
    this.world = world;
    this.nodeId = nodeId;
    this.name = name;
  }

  async hello(fields: Partial<Body<'hello'>> = {}): Promise<void> {
    this.linkId = this.world.newLinkId();
    const attempts = fields.attempts ?? [];
    const { tokenKey } = this.world.core.state;
    this.world.shell.apply({
      type: 'linkUp',
      linkId: this.linkId,
      hello: {
        protocol: { min: 1, max: 1 },
        nodeId: this.nodeId,
        incarnation: 1,
        name: this.name,
        version: '0',
        nonce: 'n',
        advertise: '127.0.0.1:1',
        labels: {},
        resources: { cpu: 8, memoryBytes: 2 ** 34 },
        host: {},
        gpus: { kind: 'none' },
        drivers: [{ name: 'runc' }, { name: 'process' }],
        runners: [...this.runners.values()],
        attempts: [],
        images: [],
        ...fields,
      },
      attempts: attempts.flatMap(({ token }) => {
        const attempt = readAttemptToken(tokenKey, token);
        return attempt ? [{ attempt, token }] : [];
      }),
    });
    this.world.shell.apply({
      type: 'nodeDialled',
      linkId: this.linkId,
      nodeId: this.nodeId,
      reachable: true,
    });
    await this.world.settle();
  }

  /** What the core sent to this agent, oldest first. */
  got<N extends Message<'coordinator'>['name']>(name: N): Body<N>[] {
    return this.world.sent
      .filter((one) => one.linkId === this.linkId && one.message.name === name)
      .map((one) => one.message.body as Body<N>);
  }

  async report(
    runnerId: RunnerId,
    state: RunnerReport['state'],
    more: Partial<RunnerReport> = {},
  ): Promise<void> {
    const start = this.got('startRunner').find((one) => one.runnerId === runnerId);
    const before = this.runners.get(runnerId);
    const report: RunnerReport = {
      runnerId,
      app: start?.app ?? before?.app ?? '',
      revision: (start?.revision ?? before?.revision) as RunnerReport['revision'],
      state,
      slots: start?.slots ?? before?.slots ?? 1,
      gpus: [],
      ...more,
    };
    if (state === 'TERMINATED') this.runners.delete(runnerId);
    else this.runners.set(runnerId, report);
    this.world.shell.apply({
      type: 'runner',
      linkId: this.linkId,
      nodeId: this.nodeId,
      message: { name: 'runner', body: report },
    });
    await this.world.settle();
  }

  /** Brings every runner that was asked for to IDLE. */
  async ready(): Promise<RunnerId[]> {
    const asked = [...new Set(this.got('startRunner').map((one) => one.runnerId))];
    for (const id of asked) if (!this.runners.has(id)) await this.report(id, 'IDLE');
    return asked;
  }

  async started(token: string): Promise<void> {
    await this.#attempt(token, (attempt) => ({
      type: 'started',
      linkId: this.linkId,
      nodeId: this.nodeId,
      attempt,
      token,
    }));
  }

  async refuse(token: string, code: 'SLOTS_FULL' | 'RUNNER_GONE' | 'NODE_DRAINING'): Promise<void> {
    await this.#attempt(token, (attempt) => ({
      type: 'refused',
      linkId: this.linkId,
      nodeId: this.nodeId,
      attempt,
      token,
      failure: { code, message: 'test' },
    }));
  }

  async finish(token: string, outcome: Outcome = answered(200)): Promise<void> {
    await this.#attempt(token, (attempt) => ({
      type: 'finished',
      linkId: this.linkId,
      nodeId: this.nodeId,
      attempt,
      token,
      outcome,
      durationMs: 5,
    }));
  }

  async drop(): Promise<void> {
    this.world.shell.apply({ type: 'linkDown', linkId: this.linkId, nodeId: this.nodeId });
    await this.world.settle();
  }

  async #attempt(
    token: string,
    event: (attempt: NonNullable<ReturnType<typeof readAttemptToken>>) => Event,
  ): Promise<void> {
    const attempt = readAttemptToken(this.world.core.state.tokenKey, token);
    if (!attempt) throw new Error('a bad token');
    this.world.shell.apply(event(attempt));
    await this.world.settle();
  }
}

export function answered(status: number, headers: [string, string][] = []): Outcome {
  return {
    kind: 'response',
    status,
    headers,
    body: { kind: 'inline', bytes: Buffer.from('"ok"') },
  };
}
