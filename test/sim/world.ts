// The world of the simulator: the real shell and core over a disk that survives them, agents at the other end of links that
// break, a clock that stands still until the next thing happens, and one seed for all chance. Faults come at any step until
// `calm`; then everything is given time to end.
import { seededChance } from '../../shared/chance.ts';
import { Core } from '../../coordinator/core/core.ts';
import type { Act, Answers } from '../../coordinator/core/act.ts';
import type { Event } from '../../coordinator/core/event.ts';
import type { Command, CommandName } from '../../coordinator/api/port.ts';
import { Shell, type Effects } from '../../coordinator/shell/shell.ts';
import { defaultTiming } from '../../coordinator/state/core-state.ts';
import type { RequestId } from '../../shared/ids.ts';
import type { Body, Message } from '../../shared/protocol.ts';
import { readAttemptToken } from '../../shared/token.ts';
import { Checkers } from './checkers.ts';
import { Draw } from './draw.ts';
import { SimAgent, type AgentWorld } from './sim-agent.ts';
import { SimClock } from './sim-clock.ts';
import { SimDisk } from './sim-disk.ts';
import { attemptEvent, SimLink } from './sim-link.ts';

export interface WorldOptions {
  seed: number;
  agents: number;
  /** What is soft may be forgotten at a crash. */
  powerCuts: boolean;
  /** Negative controls: the disk says `synced` before it is; agents never say a result again. */
  lyingDisk?: boolean;
  forgetfulAgents?: boolean;
}

type Granted = Extract<Act, { act: 'lease' }>['answer'];

/** One life of the coordinator. */
interface Life {
  alive: boolean;
  shell: Shell;
  replies: Map<number, (answer: unknown) => void>;
  /** Links that are up, and the agent at the other end. */
  links: Map<number, { link: SimLink; agent: SimAgent }>;
}

const LOST = Symbol('outcome unknown');

export class World implements AgentWorld {
  readonly clock = new SimClock();
  readonly draw: Draw;
  readonly checkers = new Checkers();
  readonly disk: SimDisk;
  readonly agents: SimAgent[];
  readonly options: WorldOptions;
  readonly trace: string[] = [];
  isRough = true;
  steps = 0;
  life: Life | undefined;
  #nextReply = 1;
  #nextLink = 1;
  #nextCall = 1;

  constructor(options: WorldOptions) {
    this.options = options;
    this.draw = new Draw(options.seed);
    const watch = {
      write: (key: string, _before: Uint8Array | undefined, after: Uint8Array | undefined) =>
        this.checkers.wrote(key, after),
    };
    this.disk = new SimDisk(this.clock, this.draw, watch, options.lyingDisk === true);
    this.agents = Array.from({ length: options.agents }, (_, at) => {
      const agent = new SimAgent(`n${at}`, 1 + Math.floor(this.draw.below(3)), this);
      agent.forgetful = options.forgetfulAgents === true;
      return agent;
    });
  }

  say(what: string): void {
    this.trace.push(`${this.clock.elapsed().toFixed(1).padStart(9)} ${what}`);
  }

  // The coordinator.

  async startCoordinator(): Promise<void> {
    const life: Life = {
      alive: true,
      replies: new Map(),
      links: new Map(),
      shell: new Shell({
        openStore: () =>
          life.alive
            ? Promise.resolve(this.disk.open(() => life.alive))
            : new Promise(() => undefined),
        clock: {
          now: () => this.clock.now(),
          elapsed: () => this.clock.elapsed(),
          after: (delayMs, fire) => this.clock.after(delayMs, () => life.alive && fire()),
        },
        chance: seededChance(this.options.seed + this.steps),
        timing: defaultTiming,
        holder: 'sim',
        effects: this.#effects(() => life),
      }),
    };
    this.life = life;
    await this.#until(life.shell.start());
    this.say('coordinator started');
  }

  /** kill -9, or the power goes. */
  crashCoordinator(): void {
    const { life } = this;
    if (!life) return;
    life.alive = false;
    this.life = undefined;
    const powerCut = this.options.powerCuts && this.draw.happens(0.5);
    this.say(`coordinator dies${powerCut ? ' by a power cut' : ''}`);
    for (const { link } of life.links.values()) this.#cut(link);
    for (const lost of life.replies.values()) lost(LOST);
    this.disk.restart(powerCut);
    this.checkers.durable(this.disk);
  }

  async stopCoordinator(): Promise<void> {
    const { life } = this;
    if (!life) return;
    this.life = undefined;
    this.say('coordinator stops in order');
    await this.#until(life.shell.stop());
    life.alive = false;
    for (const { link } of life.links.values()) this.#cut(link);
    for (const lost of life.replies.values()) lost(LOST);
    this.disk.restart(false);
    this.checkers.durable(this.disk);
  }

  get core(): Core | undefined {
    const core = this.life?.shell.core;
    return core instanceof Core ? core : undefined;
  }

  // Callers.

  async ask<C extends CommandName>(
    command: C,
    fields: Command<C>,
  ): Promise<Answers[C] | undefined> {
    const { life } = this;
    if (!life || !this.core) return undefined;
    const replyTo = this.#nextReply++;
    const answer = new Promise<unknown>((done) => life.replies.set(replyTo, done));
    const event: object = { ...fields, type: command, replyTo };
    life.shell.apply(event as Event);
    const given = await answer;
    return given === LOST ? undefined : (given as Answers[C]);
  }

  async submit(fields: Command<'submit'>): Promise<RequestId | undefined> {
    const answer = await this.ask('submit', fields);
    if (!answer || 'refused' in answer) return undefined;
    this.checkers.acknowledged.add(answer.requestId);
    this.checkers.durable(this.disk);
    return answer.requestId;
  }

  /** A direct call: waits for a slot, asks the agent, is over after a while. */
  async call(app: string, tries = 4): Promise<void> {
    const { life } = this;
    const callId = this.#nextCall++;
    const startTimeoutMs = this.draw.happens(0.5) ? 3_000 : 600_000;
    if (this.draw.happens(0.2))
      this.clock.after(this.draw.below(2_000), () =>
        life?.shell.apply({ type: 'callEnded', callId }),
      );
    const granted = await this.ask('call', { app, callId, startTimeoutMs });
    if (!granted || 'refused' in granted || !life?.alive) return;
    const { nodeId, runnerId } = granted as Granted;
    const agent = this.agents.find((one) => one.nodeId === nodeId);
    const lease = `call:${callId}`;
    const taken = agent?.takeCall(runnerId, lease) ?? false;
    const over = (refusedByAgent: boolean): void => {
      agent?.callOver(lease);
      life.shell.apply({ type: 'callEnded', callId, refusedByAgent });
    };
    if (taken) return void this.clock.after(this.draw.below(3_000), () => over(false));
    over(true);
    if (tries > 1) await this.call(app, tries - 1);
  }

  // Agents.

  begun({ requestId }: Body<'assign'>): void {
    this.checkers.begun.set(requestId, (this.checkers.begun.get(requestId) ?? 0) + 1);
  }

  ended(): void {
    // Nothing is checked of it.
  }

  send(agent: SimAgent, message: Message<'agent'>): void {
    const { link } = agent;
    link?.carry('coordinator', () => this.#fromAgent(agent, link, message));
  }

  /** Keeps every agent dialling, save while it is cut off. */
  dialForEver(agent: SimAgent): void {
    const isAway = this.isRough && this.clock.elapsed() < agent.awayUntil;
    if (!agent.link && !isAway) this.#dial(agent);
    const pauseMs = this.isRough ? this.draw.between(20, 1_500) : 2_000;
    this.clock.after(pauseMs, () => this.dialForEver(agent));
  }

  /** The network between it and us is gone for a while. */
  partition(agent: SimAgent, forMs: number): void {
    this.say(`${agent.name} is cut off for ${Math.round(forMs)} ms`);
    agent.awayUntil = this.clock.elapsed() + forMs;
    this.cutLink(agent);
  }

  cutLink(agent: SimAgent): void {
    if (agent.link) this.#cut(agent.link);
  }

  crashAgent(agent: SimAgent): void {
    this.say(`${agent.name} dies`);
    const { link } = agent;
    agent.crash();
    if (link) {
      this.#cut(link);
      agent.unlinked();
    }
  }

  /** The coordinator hears nothing of it for a while; then it does again, or the link is given up. */
  silence(agent: SimAgent): void {
    const { link } = agent;
    const { life } = this;
    if (!link || !life?.links.has(link.linkId)) return;
    const about = { linkId: link.linkId, nodeId: agent.nodeId };
    life.shell.apply({ type: 'linkSilent', ...about });
    const heals = this.draw.happens(0.5);
    this.clock.after(this.draw.below(4_000), () => {
      if (!life.links.has(link.linkId)) return;
      if (heals) life.shell.apply({ type: 'linkHeard', ...about });
      else this.#cut(link);
    });
  }

  /** Fires the next thing and lets every promise settle; false when nothing comes before `limitMs`. */
  async step(limitMs: number): Promise<boolean> {
    if (!this.clock.step(limitMs)) return false;
    this.steps += 1;
    await new Promise((done) => setImmediate(done));
    const { core } = this;
    if (core && !this.disk.isBusy && this.steps % 40 === 0) this.checkers.queues(core, this.disk);
    return true;
  }

  /** Lets the world go on until this is done. */
  async #until(work: Promise<void>): Promise<void> {
    let isDone = false;
    const done = work.finally(() => (isDone = true));
    done.catch(() => undefined);
    await new Promise((settled) => setImmediate(settled));
    while (!isDone && (await this.step(this.clock.elapsed() + 60_000)));
    await done;
  }

  #dial(agent: SimAgent): void {
    const { life } = this;
    if (!life || !this.core) return;
    const link = new SimLink(this.#nextLink++, this.clock, this.draw);
    agent.link = link;
    const hello = agent.hello();
    link.carry('coordinator', () => {
      const { core } = this;
      if (this.life !== life || !core) return this.#cut(link);
      for (const [id, other] of life.links)
        if (other.agent === agent) {
          // The newer link replaces; the core hears only of the newer one (N1).
          life.links.delete(id);
          other.link.isCut = true;
        }
      life.links.set(link.linkId, { link, agent });
      const attempts = hello.attempts.flatMap(({ token }) => {
        const attempt = readAttemptToken(core.state.tokenKey, token);
        return attempt ? [{ attempt, token }] : [];
      });
      life.shell.apply({ type: 'linkUp', linkId: link.linkId, hello, attempts });
    });
  }

  /** What is under way is lost; each side notices at its own time. */
  #cut(link: SimLink): void {
    if (link.isCut) return;
    link.isCut = true;
    const { life } = this;
    const agent = this.agents.find((one) => one.link === link);
    this.clock.after(this.draw.below(2_500), () => {
      if (agent?.link === link) agent.unlinked();
    });
    const up = life?.links.get(link.linkId);
    this.clock.after(this.draw.below(2_500), () => {
      if (!life?.links.delete(link.linkId) || !up) return;
      life.shell.apply({ type: 'linkDown', linkId: link.linkId, nodeId: up.agent.nodeId });
    });
  }

  #fromAgent(agent: SimAgent, link: SimLink, message: Message<'agent'>): void {
    const { life, core } = this;
    if (!life || !core || !life.links.has(link.linkId)) return;
    const about = { linkId: link.linkId, nodeId: agent.nodeId };
    if (message.name === 'runner') life.shell.apply({ type: 'runner', ...about, message });
    if (message.name === 'started' || message.name === 'refused' || message.name === 'finished') {
      const { token } = message.body;
      const attempt = readAttemptToken(core.state.tokenKey, token);
      if (attempt) life.shell.apply(attemptEvent(message, { ...about, token, attempt }));
      else this.checkers.violate(`Q3: a token of ${agent.name} is not genuine`);
    }
  }

  #effects(lifeOf: () => Life): Effects {
    return {
      perform: (act) => {
        const life = lifeOf();
        if (life.alive) this.#perform(life, act);
      },
      lost: () => {
        const life = lifeOf();
        this.say('a commit failed; the core is thrown away');
        for (const lost of life.replies.values()) lost(LOST);
        life.replies.clear();
        for (const { link } of life.links.values()) this.#cut(link);
        life.links.clear();
        this.checkers.durable(this.disk);
      },
      live: (core) => {
        this.checkers.coreBegins();
        this.#watchCore(core);
      },
      committed: () => undefined,
    };
  }

  #watchCore(core: Core): void {
    const apply = core.apply.bind(core);
    core.apply = (event, loaded, now, elapsed) => {
      const before = new Set(core.state.flights.keys());
      const step = apply(event, loaded, now, elapsed);
      for (const act of step.acts)
        if (act.act === 'record') this.checkers.recorded(act.name, act.fields);
      this.checkers.consistent(core);
      this.checkers.inOrder(core, before);
      return step;
    };
  }

  #perform(life: Life, act: Act): void {
    switch (act.act) {
      case 'reply':
      case 'lease':
        life.replies.get(act.to)?.(act.answer);
        life.replies.delete(act.to);
        return;
      case 'welcome':
        return this.#toAgent(life, act.linkId, {
          name: 'welcome',
          body: {
            protocol: 1,
            heartbeatMs: 2_000,
            lostMs: 10_000,
            leaseKey: new Uint8Array(),
            revoke: act.revoke,
            stop: act.stop,
          },
        });
      case 'send':
        return this.#toAgent(life, act.linkId, act.message);
      default:
        return;
    }
  }

  #toAgent(life: Life, linkId: number, message: Message<'coordinator'>): void {
    const up = life.links.get(linkId);
    if (!up) return;
    const { link, agent } = up;
    link.carry('agent', () => {
      if (agent.link !== link) return;
      if (message.name === 'welcome') {
        link.welcomed = true;
        const about = { linkId, nodeId: agent.nodeId };
        this.clock.after(this.draw.below(20), () => {
          if (!link.isCut) life.shell.apply({ type: 'nodeDialled', ...about, reachable: true });
        });
      } else if (!link.welcomed)
        this.checkers.violate(`link: ${message.name} came to ${agent.name} before its welcome`);
      agent.received(message);
    });
  }
}
