// Sends to agents in the order of the core's acts, also when one of them must first load something from the disk: whatever
// follows on the same link waits for it, other links do not.
import type { LinkId } from '../core/event.ts';

export class OrderedSends {
  readonly #pending = new Map<LinkId, Promise<void>>();

  /** Runs `send` now when nothing on the link is being loaded, otherwise right after. */
  now(linkId: LinkId, send: () => void): void {
    const before = this.#pending.get(linkId);
    if (!before) return send();
    this.#chain(linkId, before.then(send));
  }

  /** Runs `load`, which sends at its end; it must not reject. */
  after(linkId: LinkId, load: () => Promise<void>): void {
    const before = this.#pending.get(linkId);
    this.#chain(linkId, before ? before.then(load) : load());
  }

  #chain(linkId: LinkId, last: Promise<void>): void {
    this.#pending.set(linkId, last);
    void last.then(() => {
      if (this.#pending.get(linkId) === last) this.#pending.delete(linkId);
    });
  }
}
