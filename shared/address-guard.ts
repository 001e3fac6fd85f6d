// Which network addresses may be asked on behalf of somebody else's URL (weights, later webhooks): public ones, and what
// the operator allows. Names are resolved once, ALL their addresses are judged, and the connection goes to what was
// judged, so that a name cannot answer differently the second time. IPv4 inside IPv6 is unwrapped first.
import { lookup, type LookupAddress, type LookupOptions } from 'node:dns';
import ipaddr from 'ipaddr.js';
import type { Agent } from 'undici';
import { Failure } from './failure.ts';
import { originAgent } from './http-get.ts';

type Address = ReturnType<typeof ipaddr.parse>;

/** An operator's allow-list entry: an address, a CIDR range, or a host name. */
export type AllowedAddress = string;

/** What `runmesh dev` allows. */
export const LOOPBACK: readonly AllowedAddress[] = ['127.0.0.0/8', '::1/128'];

export class AddressGuard {
  readonly #ranges: readonly [Address, number][];
  readonly #names: ReadonlySet<string>;

  /** @throws Failure CONFIG_INVALID for an entry that is neither address, range nor name */
  constructor(allowed: readonly AllowedAddress[] = []) {
    const ranges: [Address, number][] = [];
    const names = new Set<string>();
    for (const entry of allowed) {
      if (ipaddr.isValidCIDR(entry)) ranges.push(ipaddr.parseCIDR(entry));
      else if (isAddress(entry)) {
        const address = ipaddr.parse(entry);
        ranges.push([address, address.kind() === 'ipv4' ? 32 : 128]);
      } else if (/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i.test(entry)) names.add(entry.toLowerCase());
      else
        throw new Failure(
          'CONFIG_INVALID',
          `${JSON.stringify(entry)} is no address, range or name`,
        );
    }
    this.#ranges = ranges;
    this.#names = names;
  }

  /** True for a public unicast address, and for one on the allow-list. */
  allows(text: string): boolean {
    if (!isAddress(text)) return false;
    const address = ipaddr.parse(text);
    const inner = unwrapped(address);
    const isListed = [address, ...(inner ? [inner] : [])].some((one) =>
      this.#ranges.some(
        ([range, bits]) => range.kind() === one.kind() && one.match([range, bits] as never),
      ),
    );
    return isListed || (inner ?? address).range() === 'unicast';
  }

  /** Judges a URL whose host is written as an address; names are judged when they are resolved. @throws Failure */
  judge(url: URL): void {
    const host = url.hostname.replace(/^\[|\]$/g, '');
    if (isAddress(host) && !this.allows(host)) throw forbidden(url.hostname, host);
  }

  /** Connections that only go where this guard allows. Close it when done. */
  agent(options: Agent.Options = {}): Agent {
    return originAgent({
      ...options,
      connect: {
        lookup: (hostname, lookupOptions, callback) =>
          this.#lookup(hostname, lookupOptions, callback),
      },
    });
  }

  #lookup(
    hostname: string,
    options: LookupOptions,
    callback: (
      error: NodeJS.ErrnoException | null,
      address: string | LookupAddress[],
      family?: number,
    ) => void,
  ): void {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, []);
      const isNamed = this.#names.has(hostname.toLowerCase());
      const refused = isNamed ? undefined : addresses.find((one) => !this.allows(one.address));
      if (refused) return callback(forbidden(hostname, refused.address), []);
      const [first] = addresses;
      if (options.all || !first) return callback(null, addresses);
      callback(null, first.address, first.family);
    });
  }
}

function isAddress(text: string): boolean {
  return ipaddr.IPv4.isValidFourPartDecimal(text) || ipaddr.IPv6.isValid(text);
}

/** The IPv4 address inside a mapped, NAT64 or 6to4 address. */
function unwrapped(address: Address): Address | undefined {
  if (address.kind() !== 'ipv6') return undefined;
  const bytes = address.toByteArray();
  const at = (offset: number): Address => ipaddr.fromByteArray(bytes.slice(offset, offset + 4));
  const range = address.range();
  if (range === 'ipv4Mapped') return at(12);
  // 64:ff9b::/96; the local 64:ff9b:1::/48 stays what it is: not public.
  if (range === 'rfc6052' && bytes.slice(4, 12).every((byte) => byte === 0)) return at(12);
  if (range === '6to4') return at(2);
  return undefined;
}

function forbidden(host: string, address: string): Failure {
  return new Failure(
    'ORIGIN_FORBIDDEN_ADDRESS',
    host === address
      ? `${address} is not a public address and not on the allow-list`
      : `${host} has the address ${address}, which is not public and not on the allow-list`,
  );
}
