// The rival for durable requests: Redis, BullMQ's worker and a fastify front, three processes.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { RowParts } from '../row.ts';
import { freePort, type Program } from '../stage.ts';
import { startRedis } from './redis.ts';

const START_WITHIN_MS = 10_000;

export interface BullQueue {
  readonly url: string;
  readonly programs: readonly Program[];
}

/** BullMQ leaves the choice of its Redis client to who installs it. */
export function whyNoBullQueue(): string | false {
  try {
    createRequire(import.meta.url).resolve('ioredis');
    return false;
  } catch {
    return 'the npm package ioredis, through which bullmq speaks to Redis, is not installed';
  }
}

export async function startBullQueue(
  parts: Pick<RowParts, 'stage' | 'tools'>,
  options: {
    readonly name: string;
    readonly appendfsync: 'always' | 'no';
    readonly runnerPort: number;
    readonly concurrency: number;
    readonly redisEnv: Readonly<Record<string, string>>;
  },
): Promise<BullQueue> {
  const { stage } = parts;
  const { name, appendfsync, runnerPort, concurrency, redisEnv } = options;
  const redis = await startRedis(parts, `${name}-redis`, appendfsync, redisEnv);
  const startOne = async (part: string, args: readonly number[]): Promise<Program> => {
    const file = join(import.meta.dirname, `queue-${part}.ts`);
    const program = stage.start(`${name}-${part}`, process.execPath, [file, ...args.map(String)]);
    await program.saying(new RegExp(`${part} ready`), START_WITHIN_MS, stage.signal);
    return program;
  };
  const port = await freePort();
  const [worker, front] = await Promise.all([
    startOne('worker', [redis.port, runnerPort, concurrency]),
    startOne('front', [redis.port, port]),
  ]);
  return { url: `http://127.0.0.1:${port}`, programs: [redis.program, worker, front] };
}
