// The app behind both sides: it answers at once, says which process it is and how many calls it has had, so that a
// row can see that every call arrived, and arrived here.
import { createServer } from 'node:http';

let calls = 0;

const server = createServer((request, response) => {
  if (request.method !== 'POST') {
    const port = server.address().port;
    return void reply(response, JSON.stringify({ ok: true, pid: process.pid, port, calls }));
  }
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    calls += 1;
    reply(response, `{"pid":${process.pid},"echo":${Buffer.concat(chunks).toString()}}`);
  });
});
// Callers decide how long a connection lives: the rivals' proxies keep theirs as ours do.
server.keepAliveTimeout = 300_000;

function reply(response, body) {
  response.writeHead(200, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

server.listen(Number(process.env.PORT));
process.on('SIGTERM', () => process.exit(0));
