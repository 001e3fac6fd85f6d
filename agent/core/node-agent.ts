// The agent between its link and its parts: says who it is and what it holds, and hands each message to the part that
// serves it. Every message is idempotent (DESIGN §9); what each one means is in shared/protocol.ts.
import { asFailure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { Log } from '../../shared/log.ts';
import type { Body, GpuReport, Message, RunnerReport } from '../../shared/protocol.ts';
import type { Digest } from '../../shared/digest.ts';
import type { Attempts } from '../attempt/attempts.ts';
import type { LeaseBook } from '../http/lease-book.ts';
import type { Fleet } from '../runner/fleet.ts';
import type { HelloState, Link, LinkServer } from '../session/link.ts';

export interface NodeAgentParts {
  log: Log;
  fleet: Fleet;
  attempts: Attempts;
  leases: LeaseBook;
  /** What does not change, or changes without anybody asking. */
  facts(): Omit<HelloState, 'runners' | 'attempts' | 'images' | 'gpus'>;
  gpus(): GpuReport;
  images(): readonly Digest[];
}

/** Images named in a hello; the rest follows in `images` messages, so that the hello stays small. */
const HELLO_IMAGES = 256;
const IMAGES_A_MESSAGE = 5_000;
/** Of the message of a runner that ended: a hello carries many. */
const HELLO_MESSAGE_CHARACTERS = 300;

export class NodeAgent implements LinkServer {
  readonly #parts: NodeAgentParts;
  #link: Link | undefined;
  #told: Digest[] = [];

  constructor(parts: NodeAgentParts) {
    this.#parts = parts;
  }

  get isLinked(): boolean {
    return this.#link !== undefined;
  }

  hello(): HelloState {
    const { facts, fleet, attempts, gpus, images } = this.#parts;
    this.#told = images().slice(0, HELLO_IMAGES);
    return {
      ...facts(),
      gpus: gpus(),
      runners: fleet.reports().slice(-limits.runnersPerNode).map(shortened),
      attempts: attempts.known(),
      images: this.#told,
    };
  }

  linked(link: Link, welcome: Body<'welcome'>): void {
    const { log, fleet, attempts, leases } = this.#parts;
    this.#link = link;
    leases.open(welcome.leaseKey);
    for (const token of welcome.revoke) attempts.revoke(token);
    for (const runnerId of welcome.stop) fleet.stop(runnerId, 'stop');
    attempts.linked(link);
    // What changed between hello and welcome had no link to be told on.
    for (const report of fleet.reports().slice(-limits.runnersPerNode)) this.runnerChanged(report);
    this.imagesChanged();
    log.event('agent.linked', {
      protocol: welcome.protocol,
      revoked: welcome.revoke.length,
      stopped: welcome.stop.length,
    });
  }

  unlinked(): void {
    this.#link = undefined;
    this.#parts.leases.close();
    this.#parts.attempts.unlinked();
  }

  received(message: Message<'coordinator'>): void {
    const { fleet, attempts } = this.#parts;
    switch (message.name) {
      case 'startRunner':
        return fleet.start(message.body);
      case 'stopRunner':
        return fleet.stop(message.body.runnerId, message.body.how);
      case 'assign':
        return attempts.assign(message.body);
      case 'cancel':
        return attempts.cancel(message.body.token);
      case 'revoke':
        return attempts.revoke(message.body.token);
      case 'ack':
        return attempts.ack(message.body.token);
      case 'readLog':
        return void this.#readLog(message.body);
      case 'challenge':
      case 'welcome':
      case 'heartbeat':
      case 'goodbye':
        // The session's own.
        return;
      default:
        return message satisfies never;
    }
  }

  runnerChanged(report: RunnerReport): void {
    this.#link?.send('runner', report);
  }

  gpusChanged(report: GpuReport): void {
    this.#link?.send('gpus', report);
  }

  /** Tells what came into or left the cache since it was last told. */
  imagesChanged(): void {
    if (!this.#link) return;
    const [now, before] = [new Set(this.#parts.images()), new Set(this.#told)];
    const added = [...now.difference(before)];
    const removed = [...before.difference(now)];
    for (let at = 0; at < Math.max(added.length, removed.length); at += IMAGES_A_MESSAGE)
      this.#link.send('images', {
        added: added.slice(at, at + IMAGES_A_MESSAGE),
        removed: removed.slice(at, at + IMAGES_A_MESSAGE),
      });
    this.#told = [...now];
  }

  async #readLog({ readId, runnerId, offset, maxBytes }: Body<'readLog'>): Promise<void> {
    const none = { readId, offset, bytes: new Uint8Array(0), end: offset, gone: true, ended: true };
    try {
      const slice = await this.#parts.fleet.readLog(runnerId, offset, maxBytes);
      if (!slice) return this.#link?.send('log', none);
      const { end, ended } = slice;
      // A copy: what a driver gives may lie in shared memory, and the table wants plain bytes.
      const bytes = new Uint8Array(slice.bytes);
      this.#link?.send('log', { readId, offset: slice.offset, bytes, end, gone: false, ended });
    } catch (thrown) {
      this.#parts.log.warn('a log could not be read', {
        runner: runnerId,
        reason: asFailure(thrown).message,
      });
      this.#link?.send('log', none);
    }
  }
}

function shortened(report: RunnerReport): RunnerReport {
  if (!report.failure) return report;
  const message = report.failure.message.slice(0, HELLO_MESSAGE_CHARACTERS);
  return { ...report, failure: { code: report.failure.code, message } };
}
