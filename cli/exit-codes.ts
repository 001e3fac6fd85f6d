// THE table of exit codes: part of the command's contract, so that scripts can tell "your request failed" from "nobody
// is there" without reading text. Numbers from 64 up are those of <sysexits.h> where one fits.
import type { FailureCode } from '../shared/failure.ts';

interface ExitRow {
  code: number;
  doc: string;
}

export const exits = {
  ok: { code: 0, doc: 'it worked' },
  failed: { code: 1, doc: 'the request ran and failed, or the state does not allow the command' },
  usage: { code: 2, doc: 'the command line is wrong' },
  data: { code: 65, doc: 'an app file, an input or a field of it is wrong' },
  missing: { code: 66, doc: 'the file, app, runner or request does not exist' },
  unreachable: { code: 69, doc: 'no coordinator answers at RUNMESH_URL' },
  ours: { code: 70, doc: 'a defect of runmesh' },
  host: { code: 71, doc: 'this machine refuses: port or data folder in use, disk full' },
  retry: { code: 75, doc: 'it cannot be done now; the same command may work later' },
  protocol: { code: 76, doc: 'what answers is not a coordinator of a version that fits' },
  auth: { code: 77, doc: 'credentials are missing, wrong or not enough; see RUNMESH_KEY' },
  config: { code: 78, doc: 'a configuration value is wrong' },
  interrupted: { code: 130, doc: 'ended by Ctrl-C before the end was known' },
} as const satisfies Record<string, ExitRow>;

export type Exit = keyof typeof exits;

const byFailure: Partial<Record<FailureCode, Exit>> = {
  INPUT_INVALID: 'data',
  INPUT_TOO_LARGE: 'data',
  IMAGE_REF_INVALID: 'data',
  IMAGE_INVALID: 'data',
  IMAGE_NO_PLATFORM: 'data',
  DIGEST_MISMATCH: 'retry',
  NOT_FOUND: 'missing',
  RUNNER_GONE: 'missing',
  IMAGE_NOT_FOUND: 'missing',
  UNAUTHORIZED: 'auth',
  FORBIDDEN: 'auth',
  CONFIG_INVALID: 'config',
  UNAVAILABLE: 'unreachable',
  PROTOCOL_UNSUPPORTED: 'protocol',
  FRAME_INVALID: 'protocol',
  STORE_LOCKED: 'host',
  STORE_TOO_NEW: 'host',
  STORE_CORRUPT: 'host',
  DISK_FULL: 'host',
  HOST_COMMAND_FAILED: 'host',
  QUEUE_FULL: 'retry',
  LINK_LOST: 'retry',
  STORE_FAILED: 'retry',
  STORE_FENCED: 'retry',
  SHUTTING_DOWN: 'retry',
  REGISTRY_BUSY: 'retry',
  REGISTRY_UNAVAILABLE: 'retry',
  ORIGIN_UNAVAILABLE: 'retry',
  INTERNAL: 'ours',
};

/** How a command ends that a failure stopped. A code without a row says that the command itself failed. */
export function exitOfFailure(code: FailureCode): Exit {
  return byFailure[code] ?? 'failed';
}

/** The table as `runmesh --help` shows it. */
export function exitCodesText(): string {
  const rows = Object.values(exits).map(({ code, doc }) => `  ${String(code).padStart(3)}  ${doc}`);
  return ['Exit codes:', ...rows].join('\n');
}
