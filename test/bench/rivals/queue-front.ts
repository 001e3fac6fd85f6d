// The rival queue's HTTP front, a process of its own: fastify before BullMQ, with the routes that our callers use.
// Arguments: the port of Redis, the port to listen on.
//
//   POST /queue/{owner}/{app}                            answers once the job is in Redis's synced file
//   GET  /queue/{owner}/{app}/requests/{id}/status/stream  server-sent events, ends with COMPLETED
//   GET  /queue/{owner}/{app}/requests/{id}              the result
import { randomUUID } from 'node:crypto';
import { Job, Queue, QueueEvents } from 'bullmq';
import fastify from 'fastify';

interface ById {
  Params: { owner: string; app: string; id: string };
}

const [redisPort, port] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port: redisPort ?? 0 };
const queue = new Queue('bench', { connection });
const events = new QueueEvents('bench', { connection });
/** Streams that wait, by job. */
const waiting = new Map<string, () => void>();

events.on('completed', ({ jobId }) => waiting.get(jobId)?.());
events.on('failed', ({ jobId, failedReason }) => {
  process.stderr.write(`job ${jobId} failed: ${failedReason}\n`);
  waiting.get(jobId)?.();
});

const server = fastify({ logger: false });

server.post<{ Params: { owner: string; app: string } }>(
  '/queue/:owner/:app',
  async (request, reply) => {
    const id = randomUUID();
    await queue.add('call', request.body, { jobId: id });
    const base = `http://127.0.0.1:${port}/queue/${request.params.owner}/${request.params.app}`;
    const url = `${base}/requests/${id}`;
    reply.send({
      status: 'IN_QUEUE',
      request_id: id,
      response_url: url,
      status_url: `${url}/status`,
      cancel_url: `${url}/cancel`,
    });
  },
);

server.get<ById>('/queue/:owner/:app/requests/:id/status/stream', async (request, reply) => {
  const { id } = request.params;
  reply.hijack();
  const { raw } = reply;
  const say = (status: string): void =>
    void raw.write(`data: ${JSON.stringify({ status, request_id: id })}\n\n`);
  // Watching begins before the first look, so that no end is missed.
  const ended = new Promise<void>((resolve) => waiting.set(id, resolve));
  raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  const state = await queue.getJobState(id);
  if (state !== 'completed' && state !== 'failed') {
    say(state === 'active' ? 'IN_PROGRESS' : 'IN_QUEUE');
    await ended;
  }
  waiting.delete(id);
  say('COMPLETED');
  raw.end();
});

server.get<ById>('/queue/:owner/:app/requests/:id', async (request, reply) => {
  const job = await Job.fromId(queue, request.params.id);
  if (job === undefined) return reply.code(404).send({ detail: 'no such request' });
  if (job.failedReason) return reply.code(502).send({ detail: job.failedReason });
  return reply.send(job.returnvalue);
});

await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
await server.listen({ host: '127.0.0.1', port: port ?? 0 });
process.stdout.write('front ready\n');
process.on('SIGTERM', () => process.exit(0));
