// Starts a runner: held back after failures, placed on a node, sent to its agent. A runner that no node can hold stays
// PENDING with the reason of each node, and is tried again whenever something changes.
import type { Turn } from '../core/turn.ts';
import { newRunnerId } from '../../shared/ids.ts';
import { grantToken } from '../../shared/token.ts';
import { firstMachine } from '../../shared/app-spec.ts';
import { place, type Verdict } from '../placement/place.ts';
import type { Body } from '../../shared/protocol.ts';
import { needOf, type App } from '../state/app.ts';
import { notShy } from '../dispatch/shyness.ts';
import { placeNodeOf } from '../state/node.ts';
import { addRunner, runnersOn, setPhase } from '../state/place-of-runner.ts';
import type { Runner } from '../state/runner.ts';
import { nodeOf } from '../state/runner.ts';
import { startNotBefore } from './failure-delay.ts';
import { noteState } from './note-state.ts';

/** Makes a runner; the caller places those that need not wait. */
export function startRunner(turn: Turn, app: App): Runner {
  const { spec } = app.revision;
  const machine = firstMachine(spec);
  const until = startNotBefore(app.failures);
  const delayed = until !== undefined && until > turn.elapsed;
  const runner: Runner = {
    id: newRunnerId(turn.now, turn.state.chance),
    app: app.record.app,
    revision: app.revision,
    slots: spec.scaling.max_multiplexing,
    phase: delayed ? { kind: 'delayed', until } : { kind: 'unplaced', why: 'being placed' },
    leases: new Set(),
    served: false,
    usedAt: turn.elapsed,
    shy: notShy,
    gpus: [],
    cpu: machine.cpu ?? 0,
    memoryBytes: machine.memory ?? 0,
    states: [],
  };
  addRunner(turn.state, runner);
  noteState(turn, runner);
  turn.record('runner.planned', {
    runner: runner.id,
    app: runner.app,
    wanted: app.wanted,
    delayed,
  });
  if (delayed) turn.state.agenda.set(`runner:${runner.id}`, until);
  return runner;
}

/** The delay is over, or a start succeeded: the runner may be placed now. */
export function wakeRunner(turn: Turn, runner: Runner): void {
  if (runner.phase.kind !== 'delayed') return;
  turn.state.agenda.set(`runner:${runner.id}`, undefined);
  setPhase(turn.state, runner, { kind: 'unplaced', why: 'being placed' });
  noteState(turn, runner);
  placeRunner(turn, runner);
}

/** Finds a node for an unplaced runner and sends it there. */
export function placeRunner(turn: Turn, runner: Runner): void {
  if (runner.phase.kind !== 'unplaced') return;
  const nodes = [...turn.state.nodes.values()].map((node) =>
    placeNodeOf(node, runnersOn(turn.state, node.record.nodeId), turn.elapsed),
  );
  const { node, verdicts } = place(needOf(runner.revision), nodes);
  if (!node) {
    const why = reasonOf(verdicts);
    if (runner.phase.why !== why)
      turn.record('runner.unplaced', {
        runner: runner.id,
        app: runner.app,
        verdicts: verdicts.map(textOf),
      });
    setPhase(turn.state, runner, { kind: 'unplaced', why });
    return;
  }
  setPhase(turn.state, runner, { kind: 'starting', node, state: 'PENDING' });
  turn.record('runner.placed', {
    runner: runner.id,
    app: runner.app,
    node,
    verdicts: verdicts.map(textOf),
  });
  sendStart(turn, runner);
}

/** Says (again) to the agent to start it; the agent ignores what it has already. */
export function sendStart(turn: Turn, runner: Runner): void {
  const node = nodeOf(runner);
  if (node) turn.send(node, { name: 'startRunner', body: startMessage(turn, runner) });
}

function startMessage(turn: Turn, runner: Runner): Body<'startRunner'> {
  const { spec, revision } = runner.revision;
  const machine = firstMachine(spec);
  return {
    runnerId: runner.id,
    app: runner.app,
    revision,
    source: sourceOf(turn, runner),
    port: spec.port,
    env: spec.env,
    gpus: {
      count: machine.gpus,
      ...(machine.gpu === undefined ? {} : { name: machine.gpu }),
      ...(machine.vram === undefined ? {} : { vramBytes: machine.vram }),
    },
    ...(machine.cpu === undefined ? {} : { cpu: machine.cpu }),
    ...(machine.memory === undefined ? {} : { memoryBytes: machine.memory }),
    weights: spec.weights,
    health: {
      path: spec.health.path,
      method: spec.health.method,
      timeoutMs: Math.round(spec.health.timeout * 1000),
    },
    slots: runner.slots,
    startupTimeoutMs: Math.round(spec.timeouts.startup_timeout * 1000),
    graceMs: Math.round(spec.timeouts.termination_grace_period_seconds * 1000),
  };
}

function sourceOf(turn: Turn, runner: Runner): Body<'startRunner'>['source'] {
  const { spec, imageDigest } = runner.revision;
  if (spec.image && imageDigest)
    return {
      kind: 'image',
      ref: spec.image,
      digest: imageDigest,
      ...(spec.command ? { command: spec.command } : {}),
    };
  const digest = spec.dir_digest ?? `sha256:${'0'.repeat(64)}`;
  return {
    kind: 'process',
    digest,
    sizeBytes: spec.dir_size_bytes ?? 0,
    grant: grantToken(turn.state.tokenKey, digest),
    command: spec.command ?? [],
  };
}

function textOf(verdict: Verdict): string {
  return `${verdict.name}: ${verdict.why}`;
}

function reasonOf(verdicts: readonly Verdict[]): string {
  if (verdicts.length === 0) return 'no node has joined';
  return verdicts.slice(0, 8).map(textOf).join('; ');
}
