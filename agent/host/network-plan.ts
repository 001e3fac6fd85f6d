// What a node's runner network is made of, as pure functions: names, addresses, the firewall's text, resolv.conf.
//   N1  Names and subnet derive from the data directory, so that several agents fit one host.
//   N2  A runner may open no connection to this host, to another runner or to the metadata address; it may answer
//       what the agent opened, and go out to the world under the host's address.
import { createHash } from 'node:crypto';

/** 1022 hosts: more than `limits.runnersPerNode`. */
export const PREFIX_LENGTH = 22;
const SUBNET_SIZE = 2 ** (32 - PREFIX_LENGTH);

export interface NetworkNames {
  bridge: string;
  /** Beginning of each network namespace's name. */
  namespacePrefix: string;
  /** Beginning of each host-side link's name. */
  linkPrefix: string;
  table: string;
}

/** 8 hex digits that stand for a data directory in names of kernel objects. */
export function dataFolderTag(dataFolder: string): string {
  return createHash('sha256').update(dataFolder).digest('hex').slice(0, 8);
}

/** Interface names hold at most 15 characters: bridge 10, links 10 + up to 4 hex digits. */
export function networkNames(tag: string): NetworkNames {
  return {
    bridge: `rm${tag}`,
    namespacePrefix: `rm${tag}-`,
    linkPrefix: `v${tag}x`,
    table: `runmesh_${tag}`,
  };
}

export interface Subnet {
  /** First address, as a number. */
  base: number;
}

export function addressText(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.');
}

export function addressNumber(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  const parts = match.slice(1).map(Number);
  if (parts.some((part) => part > 255)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}

export function subnetText(subnet: Subnet): string {
  return `${addressText(subnet.base)}/${PREFIX_LENGTH}`;
}

export function gatewayOf(subnet: Subnet): string {
  return addressText(subnet.base + 1);
}

/** Address of the runner with this index, 0 … 1020. */
export function runnerAddress(subnet: Subnet, index: number): string {
  return addressText(subnet.base + 2 + index);
}

/** How many runners a subnet has addresses for. */
export const RUNNER_ADDRESSES = SUBNET_SIZE - 3;

/** A taken range: `a.b.c.d/n`, or one address. Anything else (IPv6, `default`) is no conflict. */
export function overlaps(subnet: Subnet, taken: string): boolean {
  const [text, length = '32'] = taken.split('/');
  const start = addressNumber(text ?? '');
  const bits = Number(length);
  if (start === undefined || bits === 0) return false;
  const size = 2 ** (32 - bits);
  const first = Math.floor(start / size) * size;
  return subnet.base < first + size && first < subnet.base + SUBNET_SIZE;
}

/** The first free subnet of 10.64.0.0/10 and then 172.16.0.0/12, beginning where the tag says. */
export function chooseSubnet(tag: string, taken: readonly string[]): Subnet | undefined {
  const ranges: [start: string, size: number][] = [
    ['10.64.0.0', 2 ** 22],
    ['172.16.0.0', 2 ** 20],
  ];
  for (const [start, size] of ranges) {
    const count = size / SUBNET_SIZE;
    const begin = Number.parseInt(tag, 16) % count;
    for (let step = 0; step < count; step += 1) {
      const base = (addressNumber(start) ?? 0) + ((begin + step) % count) * SUBNET_SIZE;
      if (!taken.some((range) => overlaps({ base }, range))) return { base };
    }
  }
  return undefined;
}

/** The whole firewall of one bridge; loading it replaces an earlier one in one transaction (N2). */
export function firewallText(names: NetworkNames, subnet: Subnet): string {
  const { bridge, table } = names;
  return `table inet ${table}
delete table inet ${table}
table inet ${table} {
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "${bridge}" ct state established,related accept
    iifname "${bridge}" drop
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname "${bridge}" meta nfproto ipv6 drop
    iifname "${bridge}" ip saddr != ${subnetText(subnet)} drop
    iifname "${bridge}" oifname "${bridge}" drop
    iifname "${bridge}" ip daddr 169.254.0.0/16 drop
    oifname "${bridge}" ct state established,related accept
    oifname "${bridge}" drop
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr ${subnetText(subnet)} oifname != "${bridge}" masquerade
  }
}
`;
}

/** Used when the machine names no resolver that a runner can reach. */
const PUBLIC_RESOLVERS = ['1.1.1.1', '8.8.8.8'];

/**
 * A resolv.conf for a runner: the host's, without resolvers on loopback, on the host itself (N2) or on IPv6.
 * Texts are tried in order; the first that has a usable resolver wins.
 */
export function runnerResolvConf(
  texts: readonly string[],
  ownAddresses: readonly string[],
): string {
  for (const text of texts) {
    const lines = text.split('\n').map((line) => line.trim());
    const usable = lines.filter((line) => {
      const address = /^nameserver\s+(\S+)$/.exec(line)?.[1] ?? '';
      const isIpv4 = addressNumber(address) !== undefined;
      return isIpv4 && !/^(127\.|169\.254\.)/.test(address) && !ownAddresses.includes(address);
    });
    if (usable.length === 0) continue;
    return `${[...usable, ...lines.filter((line) => /^(search|options)\s/.test(line))].join('\n')}\n`;
  }
  return PUBLIC_RESOLVERS.map((address) => `nameserver ${address}\n`).join('');
}
