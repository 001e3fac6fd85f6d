// A file server for weights on a free loopback port: one folder, GET and HEAD, byte ranges.
import { once } from 'node:events';
import { createReadStream, statSync, type Stats } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { basename, join } from 'node:path';

export interface WeightsServer {
  /** `http://127.0.0.1:41234`; a file is at `${url}/${name}`. */
  readonly url: string;
  /** How many requests for files were answered: caches show here. */
  readonly served: () => number;
  stop(): Promise<void>;
}

/** Serves the files that lie directly in `folder`. */
export async function serveWeights(folder: string): Promise<WeightsServer> {
  let served = 0;
  const server = createServer((request, response) => {
    const name = basename(
      decodeURIComponent(new URL(request.url ?? '/', 'http://weights').pathname),
    );
    const stat = statSync(join(folder, name), { throwIfNoEntry: false });
    const method = request.method ?? '';
    if (method !== 'GET' && method !== 'HEAD') return void response.writeHead(405).end();
    if (name === '' || !stat?.isFile()) return void response.writeHead(404).end();
    served += 1;
    answer(request, response, join(folder, name), stat);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const stop = async (): Promise<void> => {
    server.closeAllConnections();
    if (server.listening) await new Promise((closed) => server.close(closed));
  };
  return { url: `http://127.0.0.1:${port}`, served: () => served, stop };
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  { size, mtimeMs }: Stats,
): void {
  const etag = `"${size}-${Math.trunc(mtimeMs)}"`;
  const headers = { 'accept-ranges': 'bytes', etag, 'content-type': 'application/octet-stream' };
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const isSame = request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
  const start = range && isSame ? Number(range[1]) : 0;
  const end = Math.min(range && isSame && range[2] ? Number(range[2]) : size - 1, size - 1);
  if (start > end && size > 0) {
    response.writeHead(416, { 'content-range': `bytes */${size}` }).end();
    return;
  }
  const part = range && isSame ? { 'content-range': `bytes ${start}-${end}/${size}` } : {};
  response.writeHead(range && isSame ? 206 : 200, {
    ...headers,
    ...part,
    'content-length': end - start + 1,
  });
  if (request.method === 'HEAD' || size === 0) return void response.end();
  createReadStream(path, { start, end })
    .on('error', () => response.destroy())
    .pipe(response);
}
