// One link between an agent and one life of the coordinator: ordered, with a delay each way. When it is cut, what is under
// way is lost in both directions, and each side notices at its own time.
import type { Event } from '../../coordinator/core/event.ts';
import type { NodeId } from '../../shared/ids.ts';
import type { Message } from '../../shared/protocol.ts';
import type { Attempt } from '../../shared/token.ts';
import type { Draw } from './draw.ts';
import type { SimClock } from './sim-clock.ts';

/** Most links are quick; a slow one lets more happen in between. */
const [QUICK_MS, SLOW_MS] = [5, 300];

export class SimLink {
  readonly linkId: number;
  readonly #clock: SimClock;
  readonly #draw: Draw;
  readonly #arrivals = { agent: 0, coordinator: 0 };
  readonly #delayMs: number;
  isCut = false;
  /** The agent must not hear anything else before it. */
  welcomed = false;

  constructor(linkId: number, clock: SimClock, draw: Draw) {
    this.linkId = linkId;
    this.#clock = clock;
    this.#draw = draw;
    this.#delayMs = draw.happens(0.2) ? SLOW_MS : QUICK_MS;
  }

  /** Delivers in order, unless the link is cut before. */
  carry(to: 'agent' | 'coordinator', deliver: () => void): void {
    if (this.isCut) return;
    const now = this.#clock.elapsed();
    const at = Math.max(this.#arrivals[to], now + this.#draw.below(this.#delayMs));
    this.#arrivals[to] = at;
    this.#clock.after(at - now, () => {
      if (!this.isCut) deliver();
    });
  }
}

/** What the link server makes of a message about an attempt. */
export function attemptEvent(
  message: Extract<Message<'agent'>, { name: 'started' | 'refused' | 'finished' }>,
  about: { linkId: number; nodeId: NodeId; token: string; attempt: Attempt },
): Event {
  if (message.name === 'started') return { type: 'started', ...about };
  if (message.name === 'refused')
    return { type: 'refused', ...about, failure: message.body.failure };
  const { outcome, durationMs } = message.body;
  return { type: 'finished', ...about, outcome, durationMs };
}
