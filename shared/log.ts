// Structured logs: JSON lines on stdout through pino, one event name of events.ts each, fields in the glossary's words.
// Output of runners is never printed raw, and fields that could hold a secret are redacted by name.
import { pino, type Logger } from 'pino';
import { stepEvents, type EventName } from './events.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';
export type LogFields = Record<string, unknown>;

export interface Log {
  event(name: EventName, fields?: LogFields): void;
  /** Something an operator should look at. */
  warn(message: string, fields?: LogFields): void;
  /** A defect of ours, or a broken promise of the machine. */
  error(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  with(fields: LogFields): Log;
}

const REDACTED = ['token', 'key', 'secret', 'password', 'authorization', 'credentials'];

/** Opens the log of one program; `destination` is a file descriptor, 2 where stdout belongs to people. */
export function openLog(program: string, level: LogLevel, destination: 1 | 2 = 1): Log {
  const logger = pino(
    {
      level,
      base: { program },
      messageKey: 'event',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: REDACTED.flatMap((name) => [name, `*.${name}`]), censor: '(redacted)' },
    },
    pino.destination({ dest: destination, sync: true }),
  );
  return logOver(logger);
}

/** A log that says nothing, for tests. */
export const silentLog: Log = {
  event() {},
  warn() {},
  error() {},
  debug() {},
  with: () => silentLog,
};

function logOver(logger: Logger): Log {
  return {
    event: (name, fields = {}) =>
      stepEvents.has(name) ? logger.debug(fields, name) : logger.info(fields, name),
    warn: (message, fields = {}) => logger.warn(fields, message),
    error: (message, fields = {}) => logger.error(fields, message),
    debug: (message, fields = {}) => logger.debug(fields, message),
    with: (fields) => logOver(logger.child(fields)),
  };
}
