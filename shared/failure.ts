// THE table of failure codes, and the error that carries one. A code is part of the contract (API, wire, logs,
// exit status); its text is for people. Peers' texts are never parsed: an unknown code falls back to its class.

/** Whether trying again can help: never, later on the same target, or elsewhere (another node or runner). */
export type RetryClass = 'never' | 'later' | 'elsewhere';

interface FailureRow {
  /** HTTP status when the failure reaches a caller. */
  status: number;
  retry: RetryClass;
  /** What it means and what to do next, one sentence each. */
  doc: string;
}

export const failures = {
  // What somebody sent.
  INPUT_INVALID: {
    status: 400,
    retry: 'never',
    doc: 'A field has a value that is not allowed. Mend the named field.',
  },
  INPUT_TOO_LARGE: {
    status: 413,
    retry: 'never',
    doc: 'The input is over a limit. Send less, or raise the named limit.',
  },
  NOT_FOUND: { status: 404, retry: 'never', doc: 'There is no such thing. List what there is.' },
  NOT_SUPPORTED: {
    status: 501,
    retry: 'never',
    doc: 'This version cannot do it. See the README for what it can.',
  },
  CONFLICT: {
    status: 409,
    retry: 'never',
    doc: 'The state does not allow it. Look at the state and decide.',
  },
  UNAUTHORIZED: {
    status: 401,
    retry: 'never',
    doc: 'Credentials are missing or wrong. Check --token or RUNMESH_KEY.',
  },
  FORBIDDEN: { status: 403, retry: 'never', doc: 'The caller may not do this here.' },
  QUEUE_FULL: {
    status: 429,
    retry: 'later',
    doc: 'The queue is longer than the caller allowed. Submit later.',
  },
  CONFIG_INVALID: {
    status: 400,
    retry: 'never',
    doc: 'A configuration value is wrong. Mend the named key.',
  },
  // Requests, as callers of fal's clients know them (error_type).
  REQUEST_TIMEOUT: {
    status: 504,
    retry: 'elsewhere',
    doc: 'The app did not answer within request_timeout.',
  },
  START_TIMEOUT: {
    status: 504,
    retry: 'never',
    doc: "No runner began the request within the caller's start timeout.",
  },
  STARTUP_TIMEOUT: {
    status: 504,
    retry: 'elsewhere',
    doc: 'The runner was not ready within startup_timeout. Read its logs.',
  },
  RUNNER_SCHEDULING: {
    status: 503,
    retry: 'later',
    doc: 'No node can hold such a runner now. Check `runmesh nodes`.',
  },
  RUNNER_DISCONNECTED: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The runner went away while it worked. Read its logs.',
  },
  RUNNER_REFUSED: {
    status: 503,
    retry: 'elsewhere',
    doc: 'Nobody listens on the port of the runner. Check `port`.',
  },
  RUNNER_CONNECTION: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The connection to the runner failed.',
  },
  RUNNER_INCOMPLETE: {
    status: 502,
    retry: 'elsewhere',
    doc: 'The runner ended its response too early.',
  },
  RUNNER_RESPONSE_TOO_LARGE: {
    status: 502,
    retry: 'never',
    doc: 'The response of the app is over a limit.',
  },
  CLIENT_CANCELLED: { status: 499, retry: 'never', doc: 'The caller cancelled the request.' },
  CLIENT_DISCONNECTED: { status: 499, retry: 'never', doc: 'The caller closed the connection.' },
  // Runners.
  RUNNER_EXITED: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The process of the runner ended by itself. Read its logs.',
  },
  RUNNER_GONE: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The runner is not on this node (any more).',
  },
  SLOTS_FULL: { status: 503, retry: 'elsewhere', doc: 'Every slot of the runner is taken.' },
  NODE_FULL: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The node has too little free GPU, CPU or memory.',
  },
  NODE_DRAINING: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The agent is stopping and takes no new work.',
  },
  DRIVER_UNAVAILABLE: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The node cannot run this kind of runner. See its `drivers`.',
  },
  DRIVER_FAILED: {
    status: 503,
    retry: 'elsewhere',
    doc: 'The container runtime refused. The cause has its words.',
  },
  HOST_COMMAND_FAILED: {
    status: 500,
    retry: 'later',
    doc: 'A command of the host failed. The cause has its words.',
  },
  // Bytes.
  IMAGE_REF_INVALID: {
    status: 400,
    retry: 'never',
    doc: 'The image reference cannot be read. Use registry/name:tag.',
  },
  IMAGE_NOT_FOUND: {
    status: 404,
    retry: 'never',
    doc: 'The registry has no such image. Check name and tag.',
  },
  IMAGE_INVALID: {
    status: 502,
    retry: 'never',
    doc: 'The image breaks the image specification or a limit.',
  },
  IMAGE_NO_PLATFORM: {
    status: 400,
    retry: 'never',
    doc: 'The image has no variant for this machine.',
  },
  REGISTRY_UNAUTHORIZED: {
    status: 424,
    retry: 'never',
    doc: 'The registry wants credentials, or other ones; some say so of images that do not exist.',
  },
  REGISTRY_FORBIDDEN: {
    status: 424,
    retry: 'never',
    doc: 'The registry knows who asks and refuses. Ask its owner for the right to pull.',
  },
  REGISTRY_BUSY: {
    status: 424,
    retry: 'later',
    doc: 'The registry limits how often one may ask. Wait, or use credentials with a higher limit.',
  },
  REGISTRY_UNAVAILABLE: {
    status: 424,
    retry: 'later',
    doc: 'The registry does not answer as it should. Try later.',
  },
  ORIGIN_UNAVAILABLE: {
    status: 502,
    retry: 'later',
    doc: 'The origin of a blob does not answer as it should.',
  },
  ORIGIN_FORBIDDEN_ADDRESS: {
    status: 403,
    retry: 'never',
    doc: 'The address is private and not on the allow-list.',
  },
  DIGEST_MISMATCH: {
    status: 502,
    retry: 'later',
    doc: 'Bytes do not have the digest they were asked by. Nothing was kept.',
  },
  BLOB_TOO_LARGE: {
    status: 413,
    retry: 'never',
    doc: 'A blob is larger than declared or than its limit.',
  },
  LAYER_INVALID: {
    status: 502,
    retry: 'never',
    doc: 'A layer holds an entry that is not allowed. Nothing was kept.',
  },
  DISK_FULL: {
    status: 507,
    retry: 'elsewhere',
    doc: 'The disk is full. Free space or move the data folder.',
  },
  // The wire between coordinator and agents.
  FRAME_INVALID: {
    status: 400,
    retry: 'never',
    doc: 'A frame is malformed or breaks the protocol table.',
  },
  FRAME_TOO_LARGE: { status: 413, retry: 'never', doc: 'A frame is over the frame limit.' },
  PROTOCOL_UNSUPPORTED: {
    status: 426,
    retry: 'never',
    doc: 'The two sides share no protocol version. Upgrade the older one.',
  },
  LINK_LOST: { status: 503, retry: 'later', doc: 'The link to the other side broke.' },
  LINK_REPLACED: {
    status: 409,
    retry: 'never',
    doc: 'A newer agent with the same node id took over.',
  },
  // The store.
  STORE_LOCKED: {
    status: 500,
    retry: 'never',
    doc: 'Another process has this data folder open. Stop it first.',
  },
  STORE_TOO_NEW: {
    status: 500,
    retry: 'never',
    doc: 'The data folder was written by a newer version.',
  },
  STORE_FAILED: {
    status: 503,
    retry: 'later',
    doc: 'The disk refused a write: the outcome is unknown. Ask again by id.',
  },
  STORE_FENCED: {
    status: 503,
    retry: 'later',
    doc: 'Another coordinator owns this partition now.',
  },
  STORE_CORRUPT: {
    status: 500,
    retry: 'never',
    doc: 'A stored record fails its checksum. Restore it from a backup.',
  },
  // Ours.
  SHUTTING_DOWN: {
    status: 503,
    retry: 'later',
    doc: 'The process is stopping. Try again in a moment.',
  },
  UNAVAILABLE: {
    status: 503,
    retry: 'later',
    doc: 'The service cannot be reached. Check that it runs, and RUNMESH_URL.',
  },
  INTERNAL: {
    status: 500,
    retry: 'never',
    doc: 'A defect of ours. Please report it with the log line.',
  },
} as const satisfies Record<string, FailureRow>;

export type FailureCode = keyof typeof failures;

/** Fields of a failure that programs may read: names and numbers, never secrets. */
export type FailureDetail = Record<string, string | number | boolean | null>;

export interface FailureOptions {
  cause?: unknown;
  detail?: FailureDetail;
}

/** A broken promise with a code. The message says what is wrong here; the cause is chained, not repeated. */
export class Failure extends Error {
  readonly code: FailureCode;
  readonly detail: FailureDetail;

  constructor(code: FailureCode, message: string, options: FailureOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'Failure';
    this.code = code;
    this.detail = options.detail ?? {};
  }

  get status(): number {
    return failures[this.code].status;
  }

  get retry(): RetryClass {
    return failures[this.code].retry;
  }
}

export function isFailureCode(text: string): text is FailureCode {
  return Object.hasOwn(failures, text);
}

/** Any thrown thing as a Failure; what carries no code of ours becomes `fallback` with the thing as its cause. */
export function asFailure(thrown: unknown, fallback: FailureCode = 'INTERNAL'): Failure {
  if (thrown instanceof Failure) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new Failure(fallback, message, { cause: thrown });
}

/** The system error code (`ENOENT`…) of a thrown thing, searched through its causes. */
export function systemCode(thrown: unknown): string | undefined {
  for (
    let at: unknown = thrown, depth = 0;
    at instanceof Error && depth < 8;
    at = at.cause, depth += 1
  ) {
    if ('code' in at && typeof at.code === 'string' && !isFailureCode(at.code)) return at.code;
  }
  return undefined;
}
