// The worlds that are played.
import type { WorldOptions } from './world.ts';

export const layouts: Record<string, Omit<WorldOptions, 'seed'>> = {
  crashes: { agents: 3, powerCuts: false },
  'power-cuts': { agents: 2, powerCuts: true },
  /** Negative controls. */
  'lying-disk': { agents: 2, powerCuts: true, lyingDisk: true },
  'forgetful-agents': { agents: 2, powerCuts: false, forgetfulAgents: true },
};
