// The load generator's process: takes jobs by message, one at a time. Each lane has one connection that is kept.
import { Client, type Dispatcher } from 'undici';
import type { LoadAnswer, LoadJob, LoadResult } from './job.ts';

const HEADERS = ['content-type', 'application/json', 'authorization', 'Key bench:bench'];

interface Reply {
  status: number;
  text: string;
}

/** One request on a connection, by undici's lowest interface: the generator must not be the bottleneck. */
function send(client: Client, method: 'GET' | 'POST', path: string, body?: string): Promise<Reply> {
  return new Promise((resolve, reject) => {
    let status = 0;
    let text = '';
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart() {},
      onResponseStart(_controller, code) {
        status = code;
      },
      onResponseData(_controller, chunk) {
        text += chunk.toString('latin1');
      },
      onResponseEnd() {
        resolve({ status, text });
      },
      onResponseError(_controller, error) {
        reject(error);
      },
    };
    client.dispatch({ path, method, headers: HEADERS, body: body ?? null }, handler);
  });
}

async function direct(client: Client, job: LoadJob, number: number): Promise<void> {
  check(
    await send(client, 'POST', job.path, inputOf(number)),
    'call',
    job.expect,
    `"n":${number},`,
  );
}

async function submit(client: Client, job: LoadJob, number: number): Promise<void> {
  const accepted = await send(client, 'POST', job.path, inputOf(number));
  check(accepted, 'submit', 'IN_QUEUE');
  const urls = JSON.parse(accepted.text) as { status_url: string; response_url: string };
  const status = await send(client, 'GET', `${new URL(urls.status_url).pathname}/stream`);
  check(status, 'status stream', 'COMPLETED');
  const result = await send(client, 'GET', new URL(urls.response_url).pathname);
  check(result, 'result', job.expect, `"n":${number},`);
}

const inputOf = (number: number): string =>
  JSON.stringify({ n: number, prompt: 'a cat in the rain, seen from a window', seed: 42 });

function check({ status, text }: Reply, what: string, ...parts: readonly string[]): void {
  if (status === 200 && parts.every((part) => text.includes(part))) return;
  throw new Error(
    `${what}: wanted 200 with ${parts.join(' ')}, got ${status} ${text.slice(0, 300)}`,
  );
}

async function run(job: LoadJob): Promise<LoadResult> {
  const call = job.kind === 'direct' ? direct : submit;
  const latenciesMs: number[] = [];
  const lanes = Array.from({ length: job.concurrency }, () => new Client(job.origin));
  let begun = 0;
  const startMs = performance.now();
  try {
    await Promise.all(
      lanes.map(async (client) => {
        while (begun < job.count) {
          const number = (begun += 1);
          const sentMs = performance.now();
          await call(client, job, number);
          latenciesMs.push(performance.now() - sentMs);
        }
      }),
    );
    return { latenciesMs, wallMs: performance.now() - startMs };
  } finally {
    await Promise.all(lanes.map((client) => client.destroy()));
  }
}

process.on('message', (job: LoadJob) => {
  const answer = (message: LoadAnswer): void => void process.send?.(message);
  run(job).then(
    (result) => answer({ kind: 'result', result }),
    (thrown: unknown) =>
      answer({
        kind: 'failed',
        message: thrown instanceof Error ? thrown.message : String(thrown),
      }),
  );
});
// The bench has gone: so do we.
process.on('disconnect', () => process.exit(0));
