// A registry on loopback that answers wrongly: a status, a text, or the real registry's bytes with one of them changed.
import { startHttpScript, type HttpScript } from '../fakes/http-script.ts';

/** Answers everything below /v2/ with `status` and `body`. */
export function brokenRegistry(
  status: number,
  body = '',
  headers: Record<string, string> = {},
): Promise<HttpScript> {
  return startHttpScript((_request, response) => {
    response.writeHead(status, headers).end(body);
  });
}

/** Hands on what `real` says, save for paths that match: of those one byte is another, and the headers still promise the old. */
export function lyingRegistry(real: string, about: RegExp): Promise<HttpScript> {
  return startHttpScript(async ({ url = '', headers }, response) => {
    const accept = headers.accept ?? '*/*';
    const answer = await fetch(`http://${real}${url}`, { headers: { accept } });
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (about.test(url) && bytes.length > 0) {
      const at = bytes.length >> 1;
      bytes[at] = (bytes[at] ?? 0) ^ 1;
    }
    const kept = ['content-type', 'docker-content-digest'].flatMap((name) => {
      const value = answer.headers.get(name);
      return value === null ? [] : [[name, value] as const];
    });
    response.writeHead(answer.status, {
      ...Object.fromEntries(kept),
      'content-length': bytes.length,
    });
    response.end(bytes);
  });
}
