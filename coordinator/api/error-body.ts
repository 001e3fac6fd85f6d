// How a failure looks to callers. Two shapes: fal's (`detail`, `error_type`) for the queue and direct calls, ours
// (`error.code`) for /v1. One table maps our codes to fal's error types.
import { failures, type Failure, type FailureCode } from '../../shared/failure.ts';

export type ErrorType =
  | 'request_timeout'
  | 'startup_timeout'
  | 'runner_scheduling_failure'
  | 'runner_connection_timeout'
  | 'runner_disconnected'
  | 'runner_connection_refused'
  | 'runner_connection_error'
  | 'runner_incomplete_response'
  | 'runner_server_error'
  | 'client_disconnected'
  | 'client_cancelled'
  | 'bad_request'
  | 'internal_error';

/** Codes that have a type of their own; the rest goes by the class of their status. */
const errorTypes: Partial<Record<FailureCode, ErrorType>> = {
  REQUEST_TIMEOUT: 'request_timeout',
  START_TIMEOUT: 'request_timeout',
  STARTUP_TIMEOUT: 'startup_timeout',
  RUNNER_SCHEDULING: 'runner_scheduling_failure',
  RUNNER_DISCONNECTED: 'runner_disconnected',
  RUNNER_EXITED: 'runner_disconnected',
  RUNNER_GONE: 'runner_disconnected',
  LINK_LOST: 'runner_disconnected',
  RUNNER_REFUSED: 'runner_connection_refused',
  RUNNER_CONNECTION: 'runner_connection_error',
  RUNNER_INCOMPLETE: 'runner_incomplete_response',
  RUNNER_RESPONSE_TOO_LARGE: 'runner_incomplete_response',
  SLOTS_FULL: 'runner_scheduling_failure',
  NODE_FULL: 'runner_scheduling_failure',
  NODE_DRAINING: 'runner_scheduling_failure',
  DRIVER_UNAVAILABLE: 'runner_scheduling_failure',
  DRIVER_FAILED: 'runner_scheduling_failure',
  CLIENT_CANCELLED: 'client_cancelled',
  CLIENT_DISCONNECTED: 'client_disconnected',
};

export function errorTypeOf(code: FailureCode): ErrorType {
  return errorTypes[code] ?? (failures[code].status < 500 ? 'bad_request' : 'internal_error');
}

export interface ErrorAnswer {
  status: number;
  /** Flat list of names and values, as `writeHead` takes it. */
  headers: string[];
  body: string;
}

/** A failure in fal's shape (fal-client reads `detail`, `error_type`, `X-Fal-Error-Type`). */
export function falError(code: FailureCode, message: string): ErrorAnswer {
  const type = errorTypeOf(code);
  const headers = ['content-type', 'application/json', 'x-fal-error-type', type];
  // A caller's own deadline must not be tried again by its client.
  if (code === 'START_TIMEOUT') headers.push('x-fal-request-timeout-type', 'user');
  return {
    status: failures[code].status,
    headers,
    body: JSON.stringify({ detail: message, error_type: type }),
  };
}

/** A failure in the shape of /v1. */
export function platformError(failure: Failure): ErrorAnswer {
  const field = failure.detail['field'];
  return {
    status: failure.status,
    headers: ['content-type', 'application/json'],
    body: JSON.stringify({
      error: {
        code: failure.code,
        message: failure.message,
        ...(field === undefined || field === null ? {} : { field: String(field) }),
        doc: failures[failure.code].doc,
      },
    }),
  };
}
