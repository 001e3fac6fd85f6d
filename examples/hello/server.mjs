// The smallest useful app: plain Node, no packages. What runmesh asks of an app is only that it speaks HTTP on PORT.
//
//   POST /        { "name": "…" }  →  { "greeting", "input", "pid" }
//   POST /stream  { "count": 3 }   →  server-sent events, one every 100 ms
//   POST /slow    { "ms": 5000 }   →  answers late; 499 when it is cancelled meanwhile
//   POST /fail    { "status": 500 } →  answers with that status
//   GET  /health  200 while it takes work
//   POST {path}/cancel             →  cancels the request with the same x-fal-request-id
import { createServer } from 'node:http';

/** Work in progress by request id: what to call to cancel it. */
const cancels = new Map();

const routes = {
  'GET /health': (_, response) => json(response, 200, { ok: true }),
  'POST /': async (request, response) => {
    const input = await inputOf(request);
    json(response, 200, { greeting: `Hello, ${input.name ?? 'world'}!`, input, pid: process.pid });
  },
  'POST /slow': async (request, response) => {
    const { ms = 5000 } = await inputOf(request);
    const cancelled = await pause(request, response, ms);
    if (cancelled) json(response, 499, { detail: 'cancelled' });
    else json(response, 200, { slept_ms: ms });
  },
  'POST /stream': async (request, response) => {
    const { count = 3 } = await inputOf(request);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    for (let at = 1; at <= count; at += 1) {
      response.write(`data: ${JSON.stringify({ at, of: count })}\n\n`);
      if (await pause(request, response, 100)) break;
    }
    response.end();
  },
  'POST /fail': async (request, response) => {
    const { status = 500 } = await inputOf(request);
    json(response, status, { detail: `failed with ${status}, as asked` });
  },
};

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://app');
  const id = request.headers['x-fal-request-id'];
  if (pathname !== '/health') {
    console.log(JSON.stringify({ event: 'request', id, method: request.method, path: pathname }));
  }
  try {
    if (pathname.endsWith('/cancel')) return cancel(id, response);
    const route = routes[`${request.method} ${pathname}`];
    if (route) await route(request, response);
    else json(response, 404, { detail: `no ${request.method} ${pathname}` });
  } catch (error) {
    json(response, error instanceof SyntaxError ? 422 : 500, { detail: error.message });
  }
});

function cancel(id, response) {
  const found = cancels.get(id);
  found?.();
  json(response, found ? 200 : 404, { cancelled: found !== undefined });
}

/** Waits `ms`; true when it was cancelled, or the caller has gone, before that. */
function pause(request, response, ms) {
  const id = request.headers['x-fal-request-id'] ?? Symbol('no id');
  return new Promise((resolve) => {
    const end = (cancelled) => {
      clearTimeout(timer);
      cancels.delete(id);
      response.off('close', gone);
      resolve(cancelled);
    };
    const gone = () => end(true);
    const timer = setTimeout(() => end(false), ms);
    cancels.set(id, () => end(true));
    response.on('close', gone);
  });
}

/** The JSON body; an empty one is an empty object. */
async function inputOf(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text.trim() === '' ? {} : JSON.parse(text);
}

function json(response, status, body) {
  if (response.headersSent) return response.end();
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

const port = Number(process.env.PORT ?? 8080);
server.listen(port, () => {
  console.log(JSON.stringify({ event: 'listening', port: server.address().port }));
});
// Stop taking work, finish what is there, go.
process.on('SIGTERM', () => server.close(() => process.exit(0)));
