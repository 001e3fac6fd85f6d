// The log of `runmesh dev`: one short line for each thing that a person who tries it wants to see; the rest stays out.
// Programs get JSON lines (shared/log.ts); this is for eyes only, so its form may change at any time.
import type { Clock } from '../shared/clock.ts';
import type { EventName } from '../shared/events.ts';
import type { Log, LogFields } from '../shared/log.ts';
import { durationText } from './quantity.ts';
import { coloured, withoutControls, type Terminal } from './terminal.ts';

/** Events that are worth a line; what is not here is left out. */
const shown: Partial<Record<EventName, string>> = {
  'request.submitted': 'request accepted',
  'request.retried': 'request waits for its next attempt',
  'request.completed': 'request completed',
  'request.cancelled': 'request cancel asked for',
  'call.finished': 'direct call ended',
  'runner.placed': 'runner placed',
  'runner.unplaced': 'no node can hold a runner',
  'runner.state': 'runner',
  'runner.ended': 'runner ended',
  'app.deployed': 'app deployed',
  'node.joined': 'node joined',
  'node.suspect': 'node is silent',
  'node.lost': 'node lost',
  'link.refused': 'agent refused',
  'store.failed': 'the disk refused a write',
  'agent.unlinked': 'agent lost the coordinator',
  'pull.finished': 'image ready',
  'weights.finished': 'weights ready',
  'gpu.changed': 'GPUs changed',
};

const LEFT_OUT = new Set([
  'program',
  'epoch',
  'partition',
  'nonce',
  'revision',
  'linkId',
  'partial',
]);

/** A log for a terminal; both programs of `dev` write into it. */
export function openHumanLog(terminal: Terminal, clock: Clock): Log {
  const startedAt = clock.elapsed();
  const write = (mark: string, text: string, fields: LogFields): void => {
    const time = durationText(clock.elapsed() - startedAt).padStart(8);
    const rest = fieldsText(fields);
    terminal.error(`${coloured(terminal, 'dim', time)}  ${mark}${text}${rest && `  ${rest}`}\n`);
  };
  const over = (base: LogFields): Log => ({
    event(name, fields = {}) {
      const text = shown[name];
      if (text === undefined) return;
      const { state, from: _, ...rest } = { ...base, ...fields };
      write('', name === 'runner.state' ? `${text} ${plain(state)}` : text, rest);
    },
    warn: (message, fields = {}) =>
      write(`${coloured(terminal, 'yellow', 'warning:')} `, message, { ...base, ...fields }),
    error: (message, fields = {}) =>
      write(`${coloured(terminal, 'red', 'error:')} `, message, { ...base, ...fields }),
    debug() {},
    with: (fields) => over({ ...base, ...fields }),
  });
  return over({});
}

function fieldsText(fields: LogFields): string {
  return Object.entries(fields)
    .filter(
      ([name, value]) =>
        !LEFT_OUT.has(name) && value !== undefined && value !== null && value !== '',
    )
    .map(([name, value]) => fieldText(name, value))
    .join(' ');
}

function fieldText(name: string, value: unknown): string {
  if (name.endsWith('Ms') && typeof value === 'number')
    return `${name.slice(0, -2)}=${durationText(value).replace(' ', '')}`;
  return `${name.replace(/(Id)$/, '')}=${plain(value)}`;
}

function plain(value: unknown): string {
  if (value instanceof Error) return withoutControls(value.message);
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? String(value));
  return withoutControls(text).replace(/\s+/g, ' ').slice(0, 300);
}
