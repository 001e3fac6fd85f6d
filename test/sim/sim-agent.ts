// An agent as the coordinator sees one: runners that go through their states, slots that it arbitrates itself, attempts that
// end somehow, an outbox that is said again until acknowledged. It follows agent/attempt, agent/runner/pool and
// agent/core/node-agent by protocol, not by code.
import type { FailureCode } from '../../shared/failure.ts';
import { newNodeId, type NodeId, type RunnerId } from '../../shared/ids.ts';
import type { Body, Message, Outcome, RunnerReport } from '../../shared/protocol.ts';
import type { Draw } from './draw.ts';
import type { SimClock } from './sim-clock.ts';
import type { SimLink } from './sim-link.ts';

type Assign = Body<'assign'>;

interface SimRunner {
  report: RunnerReport;
  leases: Set<string>;
  ready: boolean;
  draining: boolean;
}

interface Running {
  assign: Assign;
  over: boolean;
}

export interface AgentWorld {
  readonly clock: SimClock;
  readonly draw: Draw;
  /** False once faults stop: then every run is answered 200. */
  readonly isRough: boolean;
  begun(assign: Assign): void;
  ended(token: string): void;
  send(agent: SimAgent, message: Message<'agent'>): void;
}

const REMEMBERED = 20;

export class SimAgent {
  readonly nodeId: NodeId;
  readonly name: string;
  readonly #world: AgentWorld;
  /** Runners that fit; one more is refused as NODE_FULL. */
  readonly #room: number;
  readonly runners = new Map<RunnerId, SimRunner>();
  readonly ended = new Map<RunnerId, RunnerReport>();
  readonly running = new Map<string, Running>();
  readonly outbox = new Map<string, { outcome: Outcome; at: number }>();
  incarnation = 1;
  link: SimLink | undefined;
  linked = false;
  stopping = false;
  /** Monotonic ms until which the network is gone. */
  awayUntil = 0;
  /** Negative control: never says a result again. */
  forgetful = false;
  #life = 0;

  constructor(name: string, room: number, world: AgentWorld) {
    this.name = name;
    this.#room = room;
    this.#world = world;
    this.nodeId = newNodeId(world.clock.now(), world.draw.chance);
  }

  hello(): Body<'hello'> {
    const runners = [
      ...this.ended.values(),
      ...[...this.runners.values()].map(({ report }) => report),
    ];
    const running = [...this.running.keys()].map((token) => ({ token, phase: 'running' as const }));
    const finished = [...this.outbox.keys()].map((token) => ({
      token,
      phase: 'finished' as const,
    }));
    return {
      protocol: { min: 1, max: 1 },
      nodeId: this.nodeId,
      incarnation: this.incarnation,
      name: this.name,
      version: '0',
      nonce: 'n',
      advertise: '127.0.0.1:1',
      labels: {},
      resources: { cpu: 8, memoryBytes: 2 ** 34 },
      host: {},
      gpus: { kind: 'none' },
      drivers: [{ name: 'runc' }, { name: 'process' }],
      runners: runners.map((report) => ({ ...report })),
      attempts: [...running, ...finished],
      images: [],
    };
  }

  received(message: Message<'coordinator'>): void {
    switch (message.name) {
      case 'welcome':
        return this.#welcomed(message.body);
      case 'startRunner':
        return this.#start(message.body);
      case 'stopRunner':
        return this.#stop(message.body.runnerId, message.body.how);
      case 'assign':
        return this.#assign(message.body);
      case 'cancel':
        return this.#cancel(message.body.token);
      case 'revoke':
        return this.#revoke(message.body.token);
      case 'ack':
        return void this.outbox.delete(message.body.token);
      default:
        return;
    }
  }

  unlinked(): void {
    this.link = undefined;
    this.linked = false;
  }

  /** Loses its runners and the calls it had open; its outbox survives, save what was not written yet. */
  crash(): void {
    this.#life += 1;
    this.incarnation += 1;
    for (const token of this.running.keys()) this.#world.ended(token);
    this.running.clear();
    this.runners.clear();
    this.ended.clear();
    this.stopping = false;
    for (const [token, { at }] of this.outbox)
      if (at > this.#world.clock.elapsed() - 10) this.outbox.delete(token);
  }

  /** Begins to stop in order: takes nothing new, then breaks off what runs. */
  stopInOrder(): void {
    this.stopping = true;
    this.#later(this.#world.draw.below(800), () => {
      for (const token of [...this.running.keys()]) this.#finish(token, failed('NODE_DRAINING'));
      this.#later(50, () => {
        for (const id of [...this.runners.keys()]) this.#end(id);
      });
    });
  }

  /** Takes a slot for a direct call. */
  takeCall(runnerId: RunnerId, lease: string): boolean {
    const runner = this.runners.get(runnerId);
    if (!this.linked || this.stopping || !runner?.ready || runner.draining) return false;
    if (runner.leases.size >= runner.report.slots) return false;
    runner.leases.add(lease);
    return true;
  }

  callOver(lease: string): void {
    for (const id of this.runners.keys()) this.#giveBack(id, lease);
  }

  /** The process of a runner ends by itself. */
  killRunner(id: RunnerId): void {
    this.#end(id, 'RUNNER_EXITED');
  }

  #welcomed({ revoke, stop }: Body<'welcome'>): void {
    this.linked = true;
    for (const token of revoke) this.#revoke(token);
    for (const id of stop) this.#stop(id, 'stop');
    if (!this.forgetful)
      for (const [token, { outcome }] of this.outbox)
        this.#say({ name: 'finished', body: { token, outcome, durationMs: 1 } });
  }

  #start(order: Body<'startRunner'>): void {
    const { runnerId, app, revision, slots } = order;
    const known = this.runners.get(runnerId)?.report ?? this.ended.get(runnerId);
    if (known) return this.#say({ name: 'runner', body: { ...known } });
    const report: RunnerReport = { runnerId, app, revision, state: 'PENDING', slots, gpus: [] };
    const code = this.stopping
      ? 'NODE_DRAINING'
      : this.runners.size >= this.#room
        ? 'NODE_FULL'
        : undefined;
    if (code) {
      const refused: RunnerReport = { ...report, state: 'TERMINATED', failure: failureOf(code) };
      this.#remember(refused);
      return this.#say({ name: 'runner', body: refused });
    }
    this.runners.set(runnerId, { report, leases: new Set(), ready: false, draining: false });
    this.#enter(runnerId, 'PENDING');
    const { draw } = this.#world;
    const fails = this.#world.isRough && draw.happens(0.1);
    this.#later(draw.below(100), () => {
      if (draw.happens(0.5)) this.#enter(runnerId, 'DOCKER_PULL');
      this.#later(draw.below(500), () => {
        this.#enter(runnerId, 'SETUP');
        this.#later(draw.below(1000), () => {
          const runner = this.runners.get(runnerId);
          if (!runner || runner.report.state !== 'SETUP') return;
          if (fails) return this.#end(runnerId, 'RUNNER_EXITED');
          runner.ready = true;
          this.#enter(runnerId, 'IDLE');
        });
      });
    });
  }

  #stop(id: RunnerId, how: 'drain' | 'stop' | 'kill'): void {
    const runner = this.runners.get(id);
    const known = this.ended.get(id);
    if (!runner && known) return this.#say({ name: 'runner', body: { ...known } });
    if (!runner) return;
    runner.draining = true;
    if (how === 'drain' && runner.leases.size > 0) return this.#enter(id, 'DRAINING');
    this.#enter(id, 'TERMINATING');
    this.#later(how === 'kill' ? 5 : this.#world.draw.below(300), () => this.#end(id));
  }

  #end(id: RunnerId, code?: FailureCode): void {
    const runner = this.runners.get(id);
    if (!runner) return;
    for (const [token, { assign }] of this.running)
      if (assign.runnerId === id) this.#finish(token, failed('RUNNER_DISCONNECTED'));
    this.runners.delete(id);
    const report: RunnerReport = {
      ...runner.report,
      state: 'TERMINATED',
      ...(code ? { failure: failureOf(code) } : {}),
    };
    this.#remember(report);
    this.#say({ name: 'runner', body: report });
  }

  #remember(report: RunnerReport): void {
    this.ended.set(report.runnerId, report);
    for (const old of [...this.ended.keys()].slice(0, -REMEMBERED)) this.ended.delete(old);
  }

  #enter(id: RunnerId, state: RunnerReport['state']): void {
    const runner = this.runners.get(id);
    if (!runner || (runner.draining && state !== 'DRAINING' && state !== 'TERMINATING')) return;
    if (runner.report.state === 'TERMINATING') return;
    runner.report = { ...runner.report, state };
    this.#say({ name: 'runner', body: runner.report });
  }

  #assign(assign: Assign): void {
    const { token } = assign;
    if (this.running.has(token)) return this.#say({ name: 'started', body: { token } });
    const held = this.outbox.get(token);
    if (held)
      return this.#say({ name: 'finished', body: { token, outcome: held.outcome, durationMs: 1 } });
    const runner = this.runners.get(assign.runnerId);
    const code = this.stopping
      ? 'NODE_DRAINING'
      : !runner?.ready || runner.draining
        ? 'RUNNER_GONE'
        : runner.leases.size >= runner.report.slots
          ? 'SLOTS_FULL'
          : this.#world.isRough && this.#world.draw.happens(0.02)
            ? 'DISK_FULL'
            : undefined;
    if (code) return this.#say({ name: 'refused', body: { token, failure: failureOf(code) } });
    runner?.leases.add(token);
    this.running.set(token, { assign, over: false });
    this.#world.begun(assign);
    this.#say({ name: 'started', body: { token } });
    const { draw } = this.#world;
    this.#later(draw.happens(0.2) ? draw.below(15_000) : draw.below(1_500), () =>
      this.#finish(token, this.#outcome()),
    );
  }

  #outcome(): Outcome {
    const { draw } = this.#world;
    if (!this.#world.isRough || draw.happens(0.75)) return answered(200);
    return (
      draw.one([
        answered(503),
        answered(504),
        answered(500),
        failed('RUNNER_CONNECTION'),
        failed('RUNNER_INCOMPLETE'),
        failed('REQUEST_TIMEOUT'),
        failed('ORIGIN_UNAVAILABLE'),
      ]) ?? answered(200)
    );
  }

  #cancel(token: string): void {
    if (!this.running.has(token)) return;
    const outcome = this.#world.draw.happens(0.7) ? answered(499) : answered(200);
    this.#later(this.#world.draw.below(200), () => this.#finish(token, outcome));
  }

  #revoke(token: string): void {
    this.#drop(token);
    this.outbox.delete(token);
  }

  #finish(token: string, outcome: Outcome): void {
    if (!this.running.has(token)) return;
    this.outbox.set(token, { outcome, at: this.#world.clock.elapsed() });
    this.#drop(token);
    this.#say({ name: 'finished', body: { token, outcome, durationMs: 1 } });
  }

  #drop(token: string): void {
    const running = this.running.get(token);
    if (!running) return;
    this.running.delete(token);
    this.#world.ended(token);
    this.#giveBack(running.assign.runnerId, token);
  }

  #giveBack(id: RunnerId, lease: string): void {
    const runner = this.runners.get(id);
    if (!runner?.leases.delete(lease) || runner.leases.size > 0) return;
    if (runner.report.state === 'DRAINING') this.#stop(id, 'stop');
  }

  #later(delayMs: number, then: () => void): void {
    const life = this.#life;
    this.#world.clock.after(delayMs, () => {
      if (this.#life === life) then();
    });
  }

  #say(message: Message<'agent'>): void {
    if (this.linked) this.#world.send(this, message);
  }
}

function answered(status: number): Outcome {
  return {
    kind: 'response',
    status,
    headers: [],
    body: { kind: 'inline', bytes: Buffer.from('1') },
  };
}

function failed(code: FailureCode): Outcome {
  return { kind: 'failed', code, message: 'sim' };
}

function failureOf(code: FailureCode): { code: FailureCode; message: string } {
  return { code, message: 'sim' };
}
