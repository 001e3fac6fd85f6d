// Redis for the rival queue: append-only file, synced as told, snapshots off.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { RowParts } from '../row.ts';
import { freePort, type Program } from '../stage.ts';

export interface Redis {
  readonly port: number;
  readonly program: Program;
}

export async function startRedis(
  { stage, tools }: Pick<RowParts, 'stage' | 'tools'>,
  name: string,
  appendfsync: 'always' | 'no',
  env: Readonly<Record<string, string>>,
): Promise<Redis> {
  const dir = join(stage.folder, name);
  await mkdir(dir, { recursive: true });
  const port = await freePort();
  const settings = {
    ...{ bind: '127.0.0.1', port: String(port), dir, save: '' },
    ...{ appendonly: 'yes', appendfsync },
    // BullMQ's own advice: a queue must not lose keys.
    'maxmemory-policy': 'noeviction',
  };
  const args = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, value]);
  const program = stage.start(name, tools.path('redis-server'), args, {
    env: { ...process.env, ...env },
  });
  await program.saying(/Ready to accept connections/, 10_000, stage.signal);
  return { port, program };
}
