// Which leases were used over the link that stands. A lease opens one direct call on one runner, once.
//   B1  A lease that was used is refused, as long as it can be remembered: a coordinator that draws lease ids never
//       repeats one, so only a thief does. The oldest are forgotten beyond `limits.leasesRemembered`.
//   B2  Leases of an earlier link are worth nothing: each welcome brings a new key.
import type { Digest } from '../../shared/digest.ts';
import type { RunnerId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import { isTicketFor, readLeaseToken, type TokenKey } from '../../shared/token.ts';

export type LeaseUse =
  | { kind: 'ok'; leaseId: string }
  | { kind: 'refused'; code: 'UNAUTHORIZED' | 'UNAVAILABLE'; reason: string };

export class LeaseBook {
  #key: TokenKey | undefined;
  readonly #used = new Set<string>();

  /** A new link: its key replaces the one before. */
  open(key: TokenKey): void {
    this.#key = key;
    this.#used.clear();
  }

  /** The link is gone; calls that run go on, new ones have nobody to vouch for them. */
  close(): void {
    this.#key = undefined;
    this.#used.clear();
  }

  /** Whether the coordinator lets the bearer read this blob of ours (C5). */
  mayRead(ticket: string | undefined, digest: Digest): boolean {
    return (
      this.#key !== undefined && ticket !== undefined && isTicketFor(this.#key, ticket, digest)
    );
  }

  /** Uses up the lease for `runnerId`. */
  use(token: string | undefined, runnerId: RunnerId): LeaseUse {
    if (!this.#key)
      return { kind: 'refused', code: 'UNAVAILABLE', reason: 'the agent has no coordinator now' };
    const lease = token === undefined ? undefined : readLeaseToken(this.#key, token);
    if (!lease || lease.runnerId !== runnerId)
      return { kind: 'refused', code: 'UNAUTHORIZED', reason: 'no lease for this runner' };
    if (this.#used.has(lease.leaseId))
      return { kind: 'refused', code: 'UNAUTHORIZED', reason: 'the lease was used before' }; // B1
    this.#used.add(lease.leaseId);
    if (this.#used.size > limits.leasesRemembered)
      for (const oldest of this.#used) {
        this.#used.delete(oldest);
        break;
      }
    return { kind: 'ok', leaseId: lease.leaseId };
  }
}
