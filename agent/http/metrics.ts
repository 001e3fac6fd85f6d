// The figures of this agent for Prometheus. A registry of its own, because several agents may live in one process.
import { Counter, Gauge, Registry } from 'prom-client';
import type { RunnerState } from '../../shared/runner-state.ts';
import { runnerStates } from '../../shared/runner-state.ts';

/** What gauges read when somebody asks; nothing is counted twice. */
export interface MetricSources {
  runners(): ReadonlyMap<RunnerState, number>;
  slots(): { slots: number; taken: number };
  attempts(): { running: number; outbox: number };
  isLinked(): boolean;
  /** Bytes by where they came from. */
  cacheBytes(): Readonly<Record<string, number>>;
}

export interface AgentMetrics {
  registry: Registry;
  directCalls: Counter<'how'>;
  attempts: Counter<'outcome'>;
  pulls: Counter<'outcome'>;
}

export function agentMetrics(sources: MetricSources): AgentMetrics {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, collect: (gauge: Gauge) => void): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        collect(this);
      },
    });
  };
  new Gauge({
    name: 'runmesh_agent_runners',
    help: 'Runners by state.',
    labelNames: ['state'],
    registers,
    collect() {
      const counts = sources.runners();
      for (const state of runnerStates) this.set({ state }, counts.get(state) ?? 0);
    },
  });
  gauge('runmesh_agent_slots', 'Slots of ready runners.', (at) => at.set(sources.slots().slots));
  gauge('runmesh_agent_slots_taken', 'Slots in use.', (at) => at.set(sources.slots().taken));
  gauge('runmesh_agent_attempts_running', 'Queued attempts that run.', (at) =>
    at.set(sources.attempts().running),
  );
  gauge('runmesh_agent_outbox', 'Results that wait for their acknowledgement.', (at) =>
    at.set(sources.attempts().outbox),
  );
  gauge('runmesh_agent_linked', 'Whether the link to the coordinator stands.', (at) =>
    at.set(sources.isLinked() ? 1 : 0),
  );
  new Gauge({
    name: 'runmesh_agent_cache_bytes_total',
    help: 'Bytes that came into or were found in the cache, by source, since the agent started.',
    labelNames: ['source'],
    registers,
    collect() {
      for (const [source, bytes] of Object.entries(sources.cacheBytes()))
        this.set({ source }, bytes);
    },
  });
  return {
    registry,
    directCalls: new Counter({
      name: 'runmesh_agent_direct_calls_total',
      help: 'Direct calls by how they ended.',
      labelNames: ['how'],
      registers,
    }),
    attempts: new Counter({
      name: 'runmesh_agent_attempts_total',
      help: 'Queued attempts by how they ended.',
      labelNames: ['outcome'],
      registers,
    }),
    pulls: new Counter({
      name: 'runmesh_agent_pulls_total',
      help: 'Image pulls by how they ended.',
      labelNames: ['outcome'],
      registers,
    }),
  };
}
