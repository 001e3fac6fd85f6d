// What a coordinator answers, as values for tests of the command. Each is checked against the schema that the
// coordinator publishes (coordinator/api/views.ts), so that they cannot drift apart.
import { appSpec } from '../../shared/app-spec.ts';

const SPEC = appSpec.parse({
  app: 'acme/hello',
  image: 'registry.example/hello:1',
  scaling: { max_concurrency: 2 },
});

export const ID = '019ab000-0000-7abc-8001-0123456789ab';
export const RUNNER = 'r0mi9vjk3aabcdefgh';

export const app = {
  app: 'acme/hello',
  revision: 'v0mi9vjk3aabcdefgh',
  revisionNumber: 3,
  spec: SPEC,
  inactive: [],
  queued: 2,
  inFlight: 1,
  runners: 1,
  wanted: 2,
  createdAt: 1_795_000_000_000,
  updatedAt: 1_795_000_100_000,
  failures: 0,
  waiting: { code: 'pulling', text: 'pulling the image, 40/120 MiB' },
};

export const revision = {
  app: 'acme/hello',
  revision: app.revision,
  number: 3,
  spec: SPEC,
  createdAt: 1_795_000_100_000,
};

export const runner = {
  id: RUNNER,
  app: 'acme/hello',
  revision: app.revision,
  node: { id: 'n0mi9vjk3aabcdefgh', name: 'gpu-1' },
  state: 'DOCKER_PULL',
  progress: { what: 'layer 2 of 5', doneBytes: 40 * 2 ** 20, totalBytes: 120 * 2 ** 20 },
  slots: 1,
  inFlight: 0,
  requests: [],
  gpus: ['GPU-1'],
  states: [{ state: 'PENDING', at: 1_795_000_000_000 }],
};

export const node = {
  id: 'n0mi9vjk3aabcdefgh',
  name: 'gpu-1',
  state: 'ready',
  version: '0.1.0',
  unreachable: 'no --advertise',
  labels: {},
  gpus: { kind: 'none' },
  gpusFree: 0,
  cpu: { total: 8, free: 7.5 },
  memoryBytes: { total: 64 * 2 ** 30, free: 60 * 2 ** 30 },
  drivers: [{ name: 'process' }, { name: 'runc', unavailable: 'no runc on PATH' }],
  images: [],
  runners: 1,
  host: {},
  lastSeenAt: 1_795_000_000_000,
};

export const queued = {
  id: ID,
  app: 'acme/hello',
  revision: app.revision,
  status: 'IN_QUEUE',
  state: 'ready',
  method: 'POST',
  path: '/',
  priority: 'normal',
  submittedAt: 1_795_000_000_000,
  attempts: 0,
  dispatches: 0,
  position: 1,
  waiting: { code: 'pulling', text: 'pulling the image, 40/120 MiB' },
  inputBytes: 2,
};

const { position: _, waiting: __, ...begun } = queued;
export const running = {
  ...begun,
  status: 'IN_PROGRESS',
  state: 'flight',
  dispatches: 1,
  attempts: 1,
  runnerId: RUNNER,
  nodeId: node.id,
  startedAt: 1_795_000_001_000,
};

export const done = {
  ...running,
  status: 'COMPLETED',
  state: 'done',
  endedAt: 1_795_000_002_000,
  durationMs: 1_000,
  httpStatus: 200,
  outputBytes: 20,
};

export const cancelled = {
  ...begun,
  status: 'COMPLETED',
  state: 'done',
  httpStatus: 499,
  outputBytes: 0,
  failure: { code: 'CLIENT_CANCELLED', message: 'cancelled by its caller' },
};

export const deployed = {
  app: 'acme/hello',
  revision: app.revision,
  number: 3,
  inactive: ['secrets'],
  warnings: [],
};

export const submitted = {
  status: 'IN_QUEUE',
  request_id: ID,
  response_url: '',
  status_url: '',
  cancel_url: '',
  queue_position: 1,
};
