// THE table of event names: what is logged, kept in history and counted. A name is part of the contract; fields are
// words of the glossary. One wide event ends each attempt, pull and runner start, with its phases in milliseconds; the small
// steps before it are for debugging.

export const events = {
  'request.submitted': 'A request was accepted and is durable.',
  'request.dispatched': 'An attempt was sent to a runner.',
  'request.started': 'The agent began the attempt.',
  'request.refused': 'The agent would not begin the attempt; it is placed again.',
  'request.retried': 'An attempt failed; the request waits for the next.',
  'request.completed': 'The request has its one terminal result.',
  'request.cancelled': 'A cancel was asked for.',
  'call.finished': 'A direct call ended.',
  'runner.planned': 'Scaling decided on a new runner.',
  'runner.placed': 'A node was chosen for a runner, with the reasons.',
  'runner.unplaced': 'No node can hold the runner, with the reason of each.',
  'runner.state': 'A runner went to another state.',
  'runner.ended': 'A runner is gone, with its phases and the reason.',
  'app.deployed': 'A revision became current.',
  'app.deleted': 'An app was deleted.',
  'node.joined': 'An agent said hello.',
  'node.suspect': 'A node was silent; it gets no new work.',
  'node.mass_loss': 'Most nodes went at once: we are cut off, and their attempts are left alone.',
  'node.lost': 'A node was silent for long; its attempts run again.',
  'link.refused': 'A connection to the agent link was refused.',
  'store.failed': 'A commit failed; the state was loaded again from disk.',
  'coordinator.ready': 'The coordinator serves.',
  'coordinator.stopped': 'The coordinator ended in order.',
  'agent.ready': 'The agent serves and seeks its coordinator.',
  'agent.linked': 'The link to the coordinator stands.',
  'agent.unlinked': 'The link to the coordinator broke.',
  'agent.stopped': 'The agent ended in order.',
  'attempt.finished': 'An attempt ended on the agent, with its phases.',
  'pull.finished': 'An image is unpacked, with bytes by source.',
  'weights.finished': 'Weights are in the cache, with bytes by source.',
  'gpu.changed': 'The GPUs changed or stopped answering.',
} as const satisfies Record<string, string>;

export type EventName = keyof typeof events;

/** Steps that come several times a request: logged at level debug. */
export const stepEvents: ReadonlySet<EventName> = new Set([
  'request.submitted',
  'request.dispatched',
  'request.started',
]);
