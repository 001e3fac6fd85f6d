// A stranger's script: plain JavaScript, fal's client as it comes from npm, and one rewrite of URLs. It knows nothing of
// runmesh but where it is (argv), and prints what it saw.
import { createFalClient } from '@fal-ai/client';

const base = process.argv[2];
const fal = createFalClient({
  credentials: 'any-key',
  requestMiddleware: async (request) => ({
    ...request,
    url: request.url
      .replace('https://queue.fal.run', `${base}/queue`)
      .replace('https://fal.run', `${base}/run`)
      .replace('https://rest.fal.ai', `${base}/rest`),
  }),
});
const seen = {};

seen.run = await fal.run('demo/hello', { input: { name: 'run' } });

for (const mode of ['polling', 'streaming']) {
  const statuses = [];
  const onQueueUpdate = ({ status }) => void statuses.push(status);
  const input = { ms: 400 };
  const options = mode === 'polling' ? { mode, pollInterval: 50 } : { mode };
  const result = await fal.subscribe('demo/hello/slow', { input, onQueueUpdate, ...options });
  seen[mode] = { ...result, statuses: [...new Set(statuses)] };
}

const { request_id: requestId } = await fal.queue.submit('demo/hello', {
  input: { name: 'queue' },
});
let status;
do status = await fal.queue.status('demo/hello', { requestId, logs: true });
while (status.status !== 'COMPLETED');
seen.status = status;
seen.result = await fal.queue.result('demo/hello', { requestId });
seen.requestId = requestId;

const slow = await fal.queue.submit('demo/hello/slow', { input: { ms: 60_000 } });
const which = { requestId: slow.request_id };
while ((await fal.queue.status('demo/hello', which)).status !== 'IN_PROGRESS');
await fal.queue.cancel('demo/hello', which);
await fal.queue.subscribeToStatus('demo/hello', { ...which, mode: 'streaming' });
seen.cancelled = await fal.queue
  .result('demo/hello', which)
  .catch(({ status, body }) => ({ status, body }));

const events = [];
for await (const event of await fal.stream('demo/hello', { input: { count: 2 } }))
  events.push(event);
seen.events = events;

process.stdout.write(JSON.stringify(seen));
