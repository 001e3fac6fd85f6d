// The runner network of one node: a bridge named after the data directory, and for each runner a network namespace
// with one isolated port on it (network-plan.ts N1, N2). The kernel holds the state; the subnet is also kept in
// `network.json`, so that addresses stay the same over restarts.
import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { Failure, systemCode } from '../../shared/failure.ts';
import type { RunnerNetwork } from './host.ts';
import {
  addressNumber,
  chooseSubnet,
  dataFolderTag,
  firewallText,
  gatewayOf,
  networkNames,
  overlaps,
  PREFIX_LENGTH,
  RUNNER_ADDRESSES,
  runnerAddress,
  runnerResolvConf,
  subnetText,
  type NetworkNames,
  type Subnet,
} from './network-plan.ts';

const NAMESPACES = '/run/netns';
const LINKS = '/sys/class/net';

/** Runs a program of the host; fails with HOST_COMMAND_FAILED. */
export type HostProgram = (
  program: string,
  args: readonly string[],
  input?: string,
  signal?: AbortSignal,
) => Promise<string>;

interface OpenNetwork {
  subnet: Subnet;
  resolvConf: string;
  mtu: number;
}

export class RunnerNetworks {
  readonly #dataFolder: string;
  readonly #tag: string;
  readonly #names: NetworkNames;
  readonly #run: HostProgram;
  readonly #indexOf = new Map<string, number>();
  #open: Promise<OpenNetwork> | undefined;
  #next = 0;

  constructor(dataFolder: string, run: HostProgram) {
    this.#dataFolder = dataFolder;
    this.#tag = dataFolderTag(dataFolder);
    this.#names = networkNames(this.#tag);
    this.#run = run;
  }

  /** Makes the bridge and loads the firewall; safe to call again. */
  async open(): Promise<void> {
    this.#open ??= this.#make();
    try {
      await this.#open;
    } catch (thrown) {
      this.#open = undefined;
      throw thrown;
    }
  }

  async attach(runnerId: string, signal?: AbortSignal): Promise<RunnerNetwork> {
    if (this.#open === undefined) await this.open();
    const open = await this.#open;
    if (open === undefined)
      throw new Failure('HOST_COMMAND_FAILED', 'the runner network is closed');
    const index = this.#take(runnerId);
    const name = this.#namespace(runnerId);
    const link = this.#link(index);
    const address = runnerAddress(open.subnet, index);
    try {
      await this.#run('ip', ['netns', 'add', name], '', signal);
      const outside = [
        `link add ${link} mtu ${open.mtu} type veth peer name eth0 mtu ${open.mtu} netns ${name}`,
        `link set ${link} master ${this.#names.bridge} up`,
        `link set ${link} type bridge_slave isolated on`,
      ];
      await this.#run('ip', ['-batch', '-'], `${outside.join('\n')}\n`, signal);
      const inside = [
        'link set lo up',
        `addr add ${address}/${PREFIX_LENGTH} dev eth0`,
        'link set eth0 up',
        `route add default via ${gatewayOf(open.subnet)}`,
      ];
      await this.#run('ip', ['-n', name, '-batch', '-'], `${inside.join('\n')}\n`, signal);
    } catch (thrown) {
      await this.detach(runnerId);
      throw thrown;
    }
    return { namespacePath: join(NAMESPACES, name), address, resolvConf: open.resolvConf };
  }

  async detach(runnerId: string): Promise<void> {
    const index = this.#indexOf.get(runnerId);
    if (index !== undefined) {
      await this.#deleteLink(this.#link(index));
      this.#indexOf.delete(runnerId);
    }
    await this.#deleteNamespace(this.#namespace(runnerId));
  }

  /** Takes away everything that carries our names; runners of this data directory lose their network. */
  async close(): Promise<void> {
    this.#open = undefined;
    this.#indexOf.clear();
    for (const name of await namesIn(NAMESPACES, this.#names.namespacePrefix)) {
      await this.#deleteNamespace(name);
    }
    for (const name of await namesIn(LINKS, this.#names.linkPrefix)) await this.#deleteLink(name);
    await this.#deleteLink(this.#names.bridge);
    const table = this.#names.table;
    await this.#run('nft', ['-f', '-'], `table inet ${table}\ndelete table inet ${table}\n`);
  }

  async #make(): Promise<OpenNetwork> {
    const subnet = await this.#chooseSubnet();
    const { bridge } = this.#names;
    if (!existsSync(join(LINKS, bridge)))
      await this.#run('ip', ['link', 'add', bridge, 'type', 'bridge']);
    const gateway = `${gatewayOf(subnet)}/${PREFIX_LENGTH}`;
    await this.#run('ip', ['addr', 'replace', gateway, 'dev', bridge]);
    await this.#run('ip', ['link', 'set', bridge, 'up']);
    await this.#run('nft', ['-f', '-'], firewallText(this.#names, subnet));
    const forward = '/proc/sys/net/ipv4/ip_forward';
    if ((await readFile(forward, 'utf8')).trim() !== '1') await writeFile(forward, '1');
    return { subnet, resolvConf: await resolvConf(), mtu: await this.#outerMtu() };
  }

  /** The kept subnet while it is still free, else a new one. */
  async #chooseSubnet(): Promise<Subnet> {
    const file = join(this.#dataFolder, 'network.json');
    const taken = await this.#takenRanges();
    const kept = await keptSubnet(file);
    if (kept !== undefined && !taken.some((range) => overlaps(kept, range))) return kept;
    const chosen = chooseSubnet(this.#tag, taken);
    if (chosen === undefined) {
      throw new Failure('HOST_COMMAND_FAILED', 'no private subnet is free for the runner network');
    }
    await writeFile(file, `${JSON.stringify({ subnet: subnetText(chosen) })}\n`);
    return chosen;
  }

  /** Every range that this machine routes or resolves by, but for our own bridge's. */
  async #takenRanges(): Promise<string[]> {
    const routes = await this.#run('ip', ['-4', 'route', 'show', 'table', 'all']);
    const ranges = routes
      .split('\n')
      .filter((line) => !line.includes(` dev ${this.#names.bridge} `))
      .flatMap((line) => line.match(/\d+\.\d+\.\d+\.\d+(\/\d+)?/g) ?? []);
    const resolvers = (await resolvTexts()).join('\n').match(/\d+\.\d+\.\d+\.\d+/g) ?? [];
    return [...ranges, ...resolvers];
  }

  /** The packet size of the way out: a larger one inside would need fragments. */
  async #outerMtu(): Promise<number> {
    const route = await this.#run('ip', ['-4', 'route', 'show', 'default']);
    const device = / dev (\S+)/.exec(route)?.[1];
    if (device === undefined) return 1500;
    return Number(await readFile(join(LINKS, device, 'mtu'), 'utf8').catch(() => '1500'));
  }

  /** A free address, the longest unused first: what lately spoke for another runner rests a while. */
  #take(runnerId: string): number {
    if (this.#indexOf.has(runnerId)) {
      throw new Failure('CONFLICT', `runner ${runnerId} has a network already`);
    }
    const used = new Set(this.#indexOf.values());
    if (used.size >= RUNNER_ADDRESSES) {
      throw new Failure('HOST_COMMAND_FAILED', 'no address is free in the runner network');
    }
    while (used.has(this.#next)) this.#next = (this.#next + 1) % RUNNER_ADDRESSES;
    const index = this.#next;
    this.#next = (this.#next + 1) % RUNNER_ADDRESSES;
    this.#indexOf.set(runnerId, index);
    return index;
  }

  #namespace(runnerId: string): string {
    return `${this.#names.namespacePrefix}${runnerId}`;
  }

  #link(index: number): string {
    return `${this.#names.linkPrefix}${index.toString(16)}`;
  }

  async #deleteLink(name: string): Promise<void> {
    if (!existsSync(join(LINKS, name))) return;
    await this.#run('ip', ['link', 'del', name]).catch((thrown: unknown) => {
      if (existsSync(join(LINKS, name))) throw thrown; // Gone with its namespace meanwhile: fine.
    });
  }

  async #deleteNamespace(name: string): Promise<void> {
    if (!existsSync(join(NAMESPACES, name))) return;
    await this.#run('ip', ['netns', 'del', name]);
  }
}

async function namesIn(folder: string, prefix: string): Promise<string[]> {
  const names = await readdir(folder).catch((thrown: unknown) => {
    if (systemCode(thrown) === 'ENOENT') return [];
    throw thrown;
  });
  return names.filter((name) => name.startsWith(prefix));
}

async function keptSubnet(file: string): Promise<Subnet | undefined> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const address = /"subnet":"([0-9.]+)\/22"/.exec(text)?.[1];
  const base = address === undefined ? undefined : addressNumber(address);
  return base === undefined ? undefined : { base };
}

/** The host's resolv.conf, and the one with the real resolvers where a stub on loopback is in front. */
async function resolvTexts(): Promise<string[]> {
  const files = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'];
  return Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
}

async function resolvConf(): Promise<string> {
  const own = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).map((at) => at.address),
  );
  return runnerResolvConf(await resolvTexts(), own);
}
