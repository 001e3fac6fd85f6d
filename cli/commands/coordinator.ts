// `runmesh coordinator`: the queue, dispatch and the API, as a program of its own.
import type { Command } from 'commander';
import { coordinatorTable, loadCoordinatorConfig } from '../../coordinator/config.ts';
import { describeConfig } from '../../shared/config.ts';
import { openLog } from '../../shared/log.ts';
import { addConfigFlags, flagsOf } from '../config-flags.ts';
import { serveUntilStopped } from '../server-command.ts';
import type { Shell } from '../shell.ts';

/** Beyond the drain that the configuration grants. */
const STOP_MARGIN_MS = 10_000;

const EXAMPLES = `
Logs are JSON lines on stdout. SIGTERM stops in order; a second one at once.

Examples:
  $ runmesh coordinator --data ./data
  $ RUNMESH_TOKEN=… runmesh coordinator --listen 0.0.0.0:8800
  $ runmesh coordinator --config /etc/runmesh/coordinator.yaml --print-config`;

export function fillCoordinator(command: Command, shell: Shell): void {
  command
    .description('Runs a coordinator: the queue, dispatch and the API.')
    .addHelpText('after', EXAMPLES)
    .action(async (options: Record<string, unknown>) => {
      const config = await loadCoordinatorConfig({
        file: options['config'] as string | undefined,
        env: shell.env,
        flags: flagsOf(coordinatorTable, options),
      });
      if (options['printConfig'])
        return shell.terminal.out(`${describeConfig(coordinatorTable, config)}\n`);
      const { startCoordinator } = await import('../../coordinator/main.ts');
      const log = openLog('coordinator', config.logLevel);
      const { clock, chance } = shell;
      const coordinator = await startCoordinator(config, { clock, chance, log });
      const stopWithinMs = config.drainSeconds * 1000 + STOP_MARGIN_MS;
      await serveUntilStopped(coordinator, {
        clock,
        stopWithinMs,
        onLate: () => log.error('did not stop in time', { stopWithinMs }),
      });
    });
  addConfigFlags(command, coordinatorTable);
}
