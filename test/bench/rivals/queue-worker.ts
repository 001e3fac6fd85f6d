// The rival queue's worker, a process of its own: takes jobs from BullMQ and makes the same HTTP call to the same
// runner. Arguments: the port of Redis, the runner's port, how many calls at once.
import { Worker } from 'bullmq';
import { Pool } from 'undici';

const [redisPort, runnerPort, concurrency = 1] = process.argv.slice(2).map(Number);
const pool = new Pool(`http://127.0.0.1:${runnerPort}`, { connections: concurrency });

const worker = new Worker(
  'bench',
  async (job) => {
    const { statusCode, body } = await pool.request({
      method: 'POST',
      path: '/',
      headers: { 'content-type': 'application/json', 'x-fal-request-id': String(job.id) },
      body: JSON.stringify(job.data),
    });
    const result: unknown = await body.json();
    if (statusCode !== 200) throw new Error(`the runner answered ${statusCode}`);
    return result;
  },
  { connection: { host: '127.0.0.1', port: redisPort ?? 0 }, concurrency },
);
worker.on('error', (error) => process.stderr.write(`${error.message}\n`));
await worker.waitUntilReady();
process.stdout.write('worker ready\n');
process.on('SIGTERM', () => process.exit(0));
