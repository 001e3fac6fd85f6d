// How a command that did not work is told: one error class, and the one place that turns anything thrown into a text
// and an exit code. Every text says what happened, and what to do next.
import { asFailure, Failure, failures, isFailureCode, systemCode } from '../shared/failure.ts';
import { exitOfFailure, exits, type Exit } from './exit-codes.ts';
import { withoutControls } from './terminal.ts';

export interface CommandFailureOptions {
  /** A code of the failure table, or one that a newer coordinator sent. */
  code?: string | undefined;
  /** The field of the input that is to blame. */
  field?: string | undefined;
  /** What to do next. */
  next?: string | undefined;
  cause?: unknown;
}

/** A command ends without having done what it was asked to do. */
export class CommandFailure extends Error {
  readonly exit: Exit;
  readonly code: string | undefined;
  readonly field: string | undefined;
  readonly next: string | undefined;

  constructor(exit: Exit, message: string, options: CommandFailureOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CommandFailure';
    this.exit = exit;
    this.code = options.code;
    this.field = options.field;
    this.next = options.next;
  }
}

/** The exit is already told (by the command itself, or by commander); only the code is left to set. */
export class AlreadyTold extends Error {
  readonly exit: Exit;

  constructor(exit: Exit) {
    super(`exit ${exits[exit].code}`);
    this.name = 'AlreadyTold';
    this.exit = exit;
  }
}

/** Anything thrown, as a CommandFailure. What has no code of ours counts as a defect of ours. */
export function asCommandFailure(thrown: unknown): CommandFailure {
  if (thrown instanceof CommandFailure) return thrown;
  const system = systemCode(thrown);
  const known = system === undefined ? undefined : systemFailures[system];
  if (known && thrown instanceof Error && (known.always || !(thrown instanceof Failure)))
    return new CommandFailure(known.exit, thrown.message, {
      next: known.next,
      cause: thrown.cause,
    });
  const failure = asFailure(thrown);
  const field = failure.detail['field'];
  return new CommandFailure(exitOfFailure(failure.code), failure.message, {
    code: failure.code,
    field: typeof field === 'string' ? field : undefined,
    next: failures[failure.code].doc,
    cause: failure.cause,
  });
}

interface SystemFailure {
  exit: Exit;
  next: string;
  /** Says more than the failure that it caused. */
  always?: true;
}

const systemFailures: Record<string, SystemFailure> = {
  EADDRINUSE: {
    exit: 'host',
    always: true,
    next: 'Another program listens there. Stop it, or choose another --listen.',
  },
  EADDRNOTAVAIL: {
    exit: 'host',
    always: true,
    next: 'This machine has no such address. Choose another --listen.',
  },
  ENOENT: { exit: 'missing', next: 'Check the path.' },
  ENOTDIR: { exit: 'missing', next: 'Check the path.' },
  EISDIR: { exit: 'missing', next: 'Name a file, not a folder.' },
  EACCES: { exit: 'host', next: 'Check who owns it, or run as another user.' },
  EROFS: { exit: 'host', next: 'Choose a folder that can be written, with --data.' },
  ENOSPC: { exit: 'host', next: failures.DISK_FULL.doc },
};

/** The lines that stderr gets. */
export function failureText(failure: CommandFailure): string {
  const known = failure.code !== undefined && isFailureCode(failure.code);
  const code = failure.code === undefined ? '' : `${failure.code}: `;
  const lines = [`runmesh: ${code}${failure.message}`];
  if (failure.field !== undefined && !failure.message.includes(failure.field))
    lines.push(`  field: ${failure.field}`);
  for (
    let at = failure.cause, depth = 0;
    at instanceof Error && depth < 4;
    at = at.cause, depth += 1
  )
    if (at.message !== '' && !lines.some((line) => line.includes(at.message)))
      lines.push(`  because: ${at.message}`);
  const next =
    failure.next ?? (known ? failures[failure.code as keyof typeof failures].doc : undefined);
  if (next !== undefined) lines.push(`  next: ${next}`);
  return `${lines.map(withoutControls).join('\n')}\n`;
}

/** The same for programs that read stderr: one JSON line. */
export function failureJson(failure: CommandFailure): string {
  const { code, message, field, next, exit } = failure;
  return `${JSON.stringify({ error: { code: code ?? exit.toUpperCase(), message, field, doc: next, exit: exits[exit].code } })}\n`;
}
