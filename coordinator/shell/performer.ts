// Performs what the core wants done: answers those who asked, sends to agents, tells watchers, logs. Those who wait for an
// answer when a core is thrown away are told that the outcome is unknown (H2).
import { asFailure, type Failure } from '../../shared/failure.ts';
import type { RequestId } from '../../shared/ids.ts';
import type { Log } from '../../shared/log.ts';
import { leaseToken, readAttemptToken, type TokenKey } from '../../shared/token.ts';
import type { Metrics } from '../api/metrics.ts';
import type { Act } from '../core/act.ts';
import type { ReplyId } from '../core/event.ts';
import type { Links } from '../link/link-port.ts';
import { decodeValue } from '../store/codec.ts';
import { keys } from '../store/keys.ts';
import { OrderedSends } from './ordered-sends.ts';
import type { Effects, Shell } from './shell.ts';

interface Waiting {
  done(answer: unknown): void;
  failed(failure: Failure): void;
}

export class Performer implements Effects {
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #sends = new OrderedSends();
  readonly #waiting = new Map<ReplyId, Waiting>();
  readonly #watchers = new Map<RequestId, Set<() => void>>();
  #nextReply = 1;
  #wired: { shell: Shell; links: Links; tokenKey: TokenKey } | undefined;

  constructor(log: Log, metrics: Metrics) {
    this.#log = log;
    this.#metrics = metrics;
  }

  /** The other parts, which need this one to be made. */
  wire(parts: { shell: Shell; links: Links; tokenKey: TokenKey }): void {
    this.#wired = parts;
  }

  /** Gives out a reply id and the promise of its answer. */
  expect(): { replyTo: ReplyId; answer: Promise<unknown> } {
    const replyTo = this.#nextReply++;
    const answer = new Promise((done, failed) => this.#waiting.set(replyTo, { done, failed }));
    return { replyTo, answer };
  }

  watch(id: RequestId, changed: () => void): () => void {
    const watchers = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, watchers);
    watchers.add(changed);
    return () => {
      if (watchers.delete(changed) && watchers.size === 0 && this.#watchers.get(id) === watchers)
        this.#watchers.delete(id);
    };
  }

  perform(act: Exclude<Act, { act: 'scan' } | { act: 'then' }>): void {
    switch (act.act) {
      case 'reply':
        return this.#answer(act.to, act.answer);
      case 'lease': {
        const key = this.#wired?.links.leaseKeyOf(act.linkId);
        if (!key)
          return this.#answer(act.to, {
            refused: 'LINK_LOST',
            message: 'the link to the node broke',
          });
        return this.#answer(act.to, {
          ...act.answer,
          lease: leaseToken(key, act.answer.runnerId, act.leaseId),
        });
      }
      case 'send':
        return this.#send(act);
      case 'welcome':
        return this.#sends.now(act.linkId, () => this.#wired?.links.welcome(act.linkId, act));
      case 'notify':
        return this.#notify(act.requestId);
      case 'record':
        return this.#record(act);
    }
  }

  lost(failure: Failure): void {
    for (const waiting of this.#waiting.values()) waiting.failed(failure);
    this.#waiting.clear();
    this.#wired?.links.closeAll(failure);
  }

  live(): void {
    for (const id of [...this.#watchers.keys()]) this.#notify(id);
  }

  committed(milliseconds: number): void {
    this.#metrics.committed(milliseconds);
  }

  #answer(to: ReplyId, answer: unknown): void {
    const waiting = this.#waiting.get(to);
    this.#waiting.delete(to);
    waiting?.done(answer);
  }

  #notify(id: RequestId): void {
    for (const changed of [...(this.#watchers.get(id) ?? [])]) changed();
  }

  #record({ name, fields }: Extract<Act, { act: 'record' }>): void {
    this.#log.event(name, fields);
    const { app, status } = fields;
    if (name === 'request.completed' && typeof app === 'string')
      this.#metrics.completed(app, Number(status));
  }

  #send(act: Extract<Act, { act: 'send' }>): void {
    const { linkId, message, inputOf } = act;
    if (!inputOf || message.name !== 'assign')
      return this.#sends.now(linkId, () => this.#wired?.links.send(linkId, message));
    this.#sends.after(linkId, async () => {
      const bytes = await this.#readInput(inputOf);
      if (bytes === 'unknown') return;
      if (bytes === 'gone') return this.#cannotSend(linkId, message.body.token);
      this.#wired?.links.send(linkId, {
        ...message,
        body: { ...message.body, input: { kind: 'inline', bytes } },
      });
    });
  }

  /** `gone`: the record is damaged or missing. `unknown`: the disk does not answer, and everything is loaded again. */
  async #readInput(id: RequestId): Promise<Uint8Array | 'gone' | 'unknown'> {
    const key = keys.input(id);
    try {
      const value = await this.#wired?.shell.store.get(key);
      return value ? (decodeValue(key, value) as Uint8Array) : 'gone';
    } catch (thrown) {
      const failure = asFailure(thrown, 'STORE_FAILED');
      this.#log.error('an input cannot be read', { request: id, code: failure.code });
      if (failure.code === 'STORE_CORRUPT') return 'gone';
      this.#wired?.shell.distrust(failure);
      return 'unknown';
    }
  }

  /** The input is gone from the disk: the attempt ends as one that nobody can run, visibly. */
  #cannotSend(linkId: number, token: string): void {
    if (!this.#wired) return;
    const { shell, tokenKey } = this.#wired;
    const attempt = readAttemptToken(tokenKey, token);
    const { core } = shell;
    const nodeId = 'state' in core ? core.state.links.get(linkId) : undefined;
    if (!attempt || !nodeId) return;
    const outcome = {
      kind: 'failed',
      code: 'STORE_CORRUPT',
      message: 'the input of the request cannot be read',
    } as const;
    shell.apply({ type: 'finished', linkId, nodeId, attempt, token, outcome, durationMs: 0 });
  }
}
