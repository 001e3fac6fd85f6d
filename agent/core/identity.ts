// Who this agent is: a node id drawn once, and an incarnation that rises at every start, so that of two agents with one
// id the later one wins. Both are durable before anybody hears of them.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Chance } from '../../shared/chance.ts';
import type { Clock } from '../../shared/clock.ts';
import { Failure, systemCode } from '../../shared/failure.ts';
import { isShortId, newNodeId, type NodeId } from '../../shared/ids.ts';
import { writeDurably } from '../../shared/durable-file.ts';

export interface Identity {
  nodeId: NodeId;
  incarnation: number;
}

const FORMAT = 1;
const record = z.object({
  format: z.number(),
  nodeId: z.string().refine((value): value is NodeId => isShortId(value)),
  incarnation: z.number().int().nonnegative(),
});

/** @throws Failure STORE_CORRUPT, STORE_TOO_NEW, STORE_FAILED */
export async function openIdentity(
  folder: string,
  clock: Clock,
  chance: Chance,
): Promise<Identity> {
  const path = join(folder, 'node.json');
  const last = await read(path);
  const identity = {
    nodeId: last?.nodeId ?? newNodeId(clock.now(), chance),
    incarnation: (last?.incarnation ?? 0) + 1,
  };
  try {
    await writeDurably(path, `${JSON.stringify({ format: FORMAT, ...identity })}\n`);
  } catch (cause) {
    throw new Failure('STORE_FAILED', `${path} cannot be written`, { cause });
  }
  return identity;
}

async function read(path: string): Promise<Identity | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return undefined;
    throw new Failure('STORE_FAILED', `${path} cannot be read`, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Failure('STORE_CORRUPT', `${path} is not JSON; remove it to join as a new node`, {
      cause,
    });
  }
  const result = record.safeParse(value);
  if (!result.success)
    throw new Failure('STORE_CORRUPT', `${path} is malformed; remove it to join as a new node`);
  if (result.data.format > FORMAT)
    throw new Failure(
      'STORE_TOO_NEW',
      `${path} has format ${result.data.format}, this build reads ${FORMAT}`,
    );
  return result.data;
}
