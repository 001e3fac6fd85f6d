// A plain HTTP server on loopback that answers as a test says, and remembers what it was asked.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

export interface AskedRequest {
  method: string;
  url: string;
  authorization: string | undefined;
  range: string | undefined;
}

export interface HttpScript extends AsyncDisposable {
  host: string;
  port: number;
  asked: AskedRequest[];
}

export type Answering = (
  request: IncomingMessage,
  response: ServerResponse,
  count: number,
) => void | Promise<void>;

export async function startHttpScript(answer: Answering): Promise<HttpScript> {
  const asked: AskedRequest[] = [];
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request;
    asked.push({ method, url, authorization: headers.authorization, range: headers.range });
    void answer(request, response, asked.length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    host: `127.0.0.1:${port}`,
    port,
    asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
