// The data path of an agent as the coordinator dials it: `/runners/<id>/http/<path>` answered by a function, after the
// lease header was seen. The wire is real, the runner behind it is the test's.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

export type FakeRunner = (req: IncomingMessage, res: ServerResponse, path: string) => void;

export interface FakeAgent {
  address: string;
  server: Server;
  /** Requests in the order of their arrival. */
  seen: { method: string; path: string; headers: IncomingMessage['headers'] }[];
  close(): Promise<void>;
}

export async function openFakeAgent(runner: FakeRunner): Promise<FakeAgent> {
  const seen: FakeAgent['seen'] = [];
  const server = createServer((req, res) => {
    if (req.url === '/healthz') return void res.end('{}');
    const match = /^\/runners\/([^/]+)\/http(\/.*)$/.exec(req.url ?? '');
    const path = match?.[2];
    if (path === undefined || !req.headers['x-runmesh-lease']) return void res.writeHead(404).end();
    seen.push({ method: req.method ?? '', path, headers: req.headers });
    runner(req, res, path);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no address');
  return {
    address: `127.0.0.1:${address.port}`,
    server,
    seen,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
