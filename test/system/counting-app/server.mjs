// Appends a line to the file COUNT for each execution, before and after its work: what a test counts survives runners.
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';

const server = createServer(async (request, response) => {
  if (request.url === '/health') return response.end('ok');
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  const { ms = 0 } = JSON.parse(text || '{}');
  const id = request.headers['x-fal-request-id'];
  appendFileSync(process.env.COUNT, `began ${id}\n`);
  await new Promise((resolve) => setTimeout(resolve, ms));
  appendFileSync(process.env.COUNT, `ended ${id}\n`);
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ id, pid: process.pid }));
});
server.listen(process.env.PORT);
process.on('SIGTERM', () => process.exit(0));
