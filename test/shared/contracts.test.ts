// What later work hangs on, as text: messages, failure codes, event names, limits, app-file fields, ids and tokens. Each golden
// file changes only on purpose (test/golden.ts).
import t from 'tap';
import { z } from 'zod';
import { appSpec } from '../../shared/app-spec.ts';
import { digestOf } from '../../shared/digest.ts';
import { events } from '../../shared/events.ts';
import { failures } from '../../shared/failure.ts';
import {
  newNodeId,
  newRequestId,
  newRunnerId,
  partitionOfApp,
  type RequestId,
  type RunnerId,
} from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import { messages, protocolRange } from '../../shared/protocol.ts';
import { runnerStates, mayFollow } from '../../shared/runner-state.ts';
import { attemptToken, grantToken, leaseToken, linkProof, peerTicket } from '../../shared/token.ts';
import { seededChance } from '../../shared/chance.ts';
import { golden } from '../golden.ts';

/** A schema as one line per field: `path type`. */
function fieldsOf(schema: z.ZodType, io: 'input' | 'output'): string[] {
  const json: unknown = z.toJSONSchema(schema, { unrepresentable: 'any', io });
  const lines: string[] = [];
  walk(json, '', lines);
  return lines;
}

function walk(node: unknown, path: string, lines: string[]): void {
  if (typeof node !== 'object' || node === null) return;
  const schema = node as Record<string, unknown>;
  const { properties, required, items, anyOf, oneOf, additionalProperties } = schema;
  const rest = Object.entries(schema).filter(
    ([key]) =>
      ![
        '$schema',
        'properties',
        'required',
        'items',
        'anyOf',
        'oneOf',
        'additionalProperties',
        'propertyNames',
      ].includes(key),
  );
  if (path) lines.push(`  ${path} ${JSON.stringify(Object.fromEntries(rest))}`);
  for (const [name, child] of Object.entries((properties as object | undefined) ?? {})) {
    const must = Array.isArray(required) && required.includes(name);
    walk(child, `${path}${path ? '.' : ''}${name}${must ? '' : '?'}`, lines);
  }
  if (items) walk(items, `${path}[]`, lines);
  if (typeof additionalProperties === 'object') walk(additionalProperties, `${path}.*`, lines);
  for (const [at, one] of ((anyOf ?? oneOf ?? []) as unknown[]).entries())
    walk(one, `${path}|${at}`, lines);
}

void t.test('messages', async (t) => {
  const text = Object.entries(messages).map(
    ([name, row]) =>
      `${name} (from ${row.from}, since ${row.since})\n${fieldsOf(row.body, 'input').join('\n')}\n`,
  );
  await golden(
    t,
    'protocol.txt',
    `protocol ${protocolRange.min}..${protocolRange.max}\n\n${text.join('\n')}`,
  );
});

void t.test('app file', async (t) => {
  await golden(t, 'app-file.txt', `${fieldsOf(appSpec, 'input').join('\n')}\n`);
});

void t.test('failure codes, events, limits, runner states', async (t) => {
  const codes = Object.entries(failures).map(([code, row]) => `${code} ${row.status} ${row.retry}`);
  await golden(t, 'failures.txt', `${codes.join('\n')}\n`);
  await golden(t, 'events.txt', `${Object.keys(events).join('\n')}\n`);
  await golden(
    t,
    'limits.txt',
    `${Object.entries(limits)
      .map((row) => row.join(' '))
      .join('\n')}\n`,
  );
  const states = runnerStates.map(
    (from) => `${from} -> ${runnerStates.filter((to) => mayFollow(from, to)).join(' ') || '(end)'}`,
  );
  await golden(t, 'runner-states.txt', `${states.join('\n')}\n`);
});

void t.test('ids and tokens', async (t) => {
  const chance = seededChance(7);
  const key = new Uint8Array(32).fill(7);
  const now = 1_790_000_000_000;
  const requestId = newRequestId(now, 5, chance);
  const lines = {
    'request id': requestId,
    'runner id': newRunnerId(now, chance),
    'node id': newNodeId(now, chance),
    'partition of acme/cutout': partitionOfApp('acme/cutout'),
    'attempt token': attemptToken(key, {
      partition: 5,
      epoch: 3,
      requestId: requestId as RequestId,
      number: 2,
      nonce: '0123456789abcdef',
    }),
    'lease token': leaseToken(key, 'r00mvfd0q800000000' as RunnerId, '17'),
    'grant token': grantToken(key, digestOf('x')),
    'peer ticket': peerTicket(key, digestOf('x')),
    'agent proof': linkProof('secret', 'agent', {
      coordinatorNonce: 'c',
      agentNonce: 'a',
      nodeId: 'n',
    }),
    'coordinator proof': linkProof('secret', 'coordinator', {
      coordinatorNonce: 'c',
      agentNonce: 'a',
      nodeId: 'n',
    }),
  };
  await golden(
    t,
    'ids.txt',
    Object.entries(lines)
      .map(([name, value]) => `${name}: ${value}\n`)
      .join(''),
  );
});
