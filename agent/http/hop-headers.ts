// Header fields that belong to one connection and are never passed on (RFC 9110 §7.6.1), and those that are ours.
// Lists are flat, name, value, name, value …, as node:http and undici give and take them.

const HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  // Answered by the server that reads the body, which is us.
  'expect',
]);

/** Prefix of what coordinator and agent tell each other; a caller or an app may not speak in our name. */
const OURS = 'x-runmesh-';

/** `raw` without what must not be passed on; names keep their spelling. */
export function passedOn(raw: readonly string[]): string[] {
  const named = namedByConnection(raw);
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name = '', value = ''] = [raw[at], raw[at + 1]];
    const lower = name.toLowerCase();
    if (HOP.has(lower) || lower.startsWith(OURS) || named?.has(lower)) continue;
    kept.push(name, value);
  }
  return kept;
}

/** Fields that `Connection` names belong to the connection too. */
function namedByConnection(raw: readonly string[]): Set<string> | undefined {
  let named: Set<string> | undefined;
  for (let at = 0; at + 1 < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() !== 'connection') continue;
    for (const part of (raw[at + 1] ?? '').split(',')) {
      const name = part.trim().toLowerCase();
      if (name === '' || name === 'close' || name === 'keep-alive') continue;
      named ??= new Set();
      named.add(name);
    }
  }
  return named;
}
