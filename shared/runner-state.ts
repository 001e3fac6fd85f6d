// A runner's life: its nine states and which may follow which. The words are fal's; both sides and the API use them.
//
//   PENDING ──► DOCKER_PULL ──► SETUP ──► IDLE ◄──► RUNNING
//      ▲  └──── image cached ───► ▲        │  └──► DRAINING ◄──┘
//   FAILURE_DELAY                          └────► TERMINATING ──► TERMINATED     (from every state)

export const runnerStates = [
  'PENDING',
  'DOCKER_PULL',
  'SETUP',
  'FAILURE_DELAY',
  'IDLE',
  'RUNNING',
  'DRAINING',
  'TERMINATING',
  'TERMINATED',
] as const;

export type RunnerState = (typeof runnerStates)[number];

const follows: Record<RunnerState, readonly RunnerState[]> = {
  FAILURE_DELAY: ['PENDING', 'TERMINATED'],
  PENDING: ['DOCKER_PULL', 'SETUP', 'TERMINATING', 'TERMINATED'],
  DOCKER_PULL: ['SETUP', 'TERMINATING', 'TERMINATED'],
  SETUP: ['IDLE', 'TERMINATING', 'TERMINATED'],
  IDLE: ['RUNNING', 'DRAINING', 'TERMINATING', 'TERMINATED'],
  RUNNING: ['IDLE', 'DRAINING', 'TERMINATING', 'TERMINATED'],
  DRAINING: ['TERMINATING', 'TERMINATED'],
  TERMINATING: ['TERMINATED'],
  TERMINATED: [],
};

export function mayFollow(from: RunnerState, to: RunnerState): boolean {
  return follows[from].includes(to);
}

/** Takes requests now, or will once its requests end. */
export function isReady(state: RunnerState): boolean {
  return state === 'IDLE' || state === 'RUNNING';
}

/** On its way out, or gone. */
export function isEnding(state: RunnerState): boolean {
  return state === 'DRAINING' || state === 'TERMINATING' || state === 'TERMINATED';
}
