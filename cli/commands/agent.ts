// `runmesh agent`: one node's GPUs, cache and runners, as a program of its own.
import type { Command } from 'commander';
import { agentTable, loadAgentConfig } from '../../agent/config.ts';
import { describeConfig } from '../../shared/config.ts';
import { openLog } from '../../shared/log.ts';
import { addConfigFlags, flagsOf } from '../config-flags.ts';
import { toolsPathOf } from '../fetched-tools.ts';
import { serveUntilStopped } from '../server-command.ts';
import type { Shell } from '../shell.ts';

/** Beyond the drain that the configuration grants: runners have their grace, mounts take a moment. */
const STOP_MARGIN_MS = 25_000;

const EXAMPLES = `
Logs are JSON lines on stdout. SIGTERM stops in order; a second one at once.

Examples:
  $ runmesh agent --coordinator ws://10.0.0.1:8800 --data /var/lib/runmesh/agent
  $ RUNMESH_TOKEN=… runmesh agent --coordinator ws://10.0.0.1:8800 \\
      --listen 0.0.0.0:8801 --advertise 10.0.0.7:8801 --label zone=a`;

export function fillAgent(command: Command, shell: Shell): void {
  command
    .description('Runs the agent of a node: its GPUs, its cache and its runners.')
    .addHelpText('after', EXAMPLES)
    .action(async (options: Record<string, unknown>) => {
      const config = await loadAgentConfig({
        file: options['config'] as string | undefined,
        env: { RUNMESH_TOOLS_PATH: toolsPathOf(shell.env), ...shell.env },
        flags: flagsOf(agentTable, options),
      });
      if (options['printConfig'])
        return shell.terminal.out(`${describeConfig(agentTable, config)}\n`);
      const { startAgent } = await import('../../agent/main.ts');
      const log = openLog('agent', config.logLevel);
      const { clock, chance } = shell;
      const agent = await startAgent(config, { clock, chance, log });
      const stopWithinMs = config.drainMs + STOP_MARGIN_MS;
      await serveUntilStopped(agent, {
        clock,
        stopWithinMs,
        onLate: () => log.error('did not stop in time', { stopWithinMs }),
      });
    });
  addConfigFlags(command, agentTable);
}
