// Addresses as people write them: `host:port`, `[v6]:port`, and which hosts never leave this machine.
import ipaddr from 'ipaddr.js';
import { isIP } from 'node:net';
import { z } from 'zod';

/** Where to listen, or to be dialled. */
export interface HostPort {
  host: string;
  port: number;
}

/** `host:port` or `[v6]:port`; undefined when it is neither. */
export function parseHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s/]+)):([0-9]{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return host !== undefined && port <= 65_535 ? { host, port } : undefined;
}

export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A setting that is an address. */
export const hostPort = z.string().transform((text, context) => {
  const parsed = parseHostPort(text);
  if (parsed) return parsed;
  context.addIssue({ code: 'custom', message: 'expected host:port with a port up to 65535' });
  return z.NEVER;
});

/** True for `localhost` and names below it, 127.0.0.0/8 and ::1 (RFC 6761 §6.3), also in the brackets of a URL. */
export function isLoopbackHost(host: string): boolean {
  // By far the most frequent first: this is asked for every call.
  if (host === '127.0.0.1') return true;
  const name = host.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  if (name === 'localhost' || name.endsWith('.localhost')) return true;
  return isIP(name) !== 0 && ipaddr.process(name).range() === 'loopback';
}
