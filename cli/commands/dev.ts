// `runmesh dev`: a coordinator and one agent in one process, to try it and to develop apps. No authentication, so
// loopback only; everything it keeps is in one folder that can be deleted.
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { loadAgentConfig } from '../../agent/config.ts';
import { LOOPBACK } from '../../shared/address-guard.ts';
import { isLoopbackHost, parseHostPort } from '../../shared/host-port.ts';
import { loadCoordinatorConfig } from '../../coordinator/config.ts';
import { openLog, type Log } from '../../shared/log.ts';
import { CommandFailure } from '../command-failure.ts';
import { toolsPathOf } from '../fetched-tools.ts';
import { openHumanLog } from '../human-log.ts';
import { DEFAULT_URL } from '../http.ts';
import { serveUntilStopped, type Serving } from '../server-command.ts';
import type { Shell } from '../shell.ts';
import { coloured } from '../terminal.ts';

const STOP_WITHIN_MS = 15_000;

const EXAMPLES = `
It has no authentication, so it listens on loopback only. Runners may fetch weights from loopback addresses.
Stop it with Ctrl-C. To start afresh, delete the data folder.

Examples:
  $ runmesh dev
  $ runmesh dev --listen 127.0.0.1:9000 --data /tmp/try`;

interface DevOptions {
  listen: string;
  data: string;
  jsonLogs?: boolean;
}

export function fillDev(command: Command, shell: Shell): void {
  command
    .description('Runs a coordinator and one agent in one process, on loopback, without keys.')
    .option('--listen <host:port>', 'where the coordinator listens', '127.0.0.1:8800')
    .option('--data <folder>', 'where everything is kept', './data')
    .option('--json-logs', 'log JSON lines on stdout instead of lines for people')
    .addHelpText('after', EXAMPLES)
    .action((options: DevOptions) => dev(shell, options));
}

async function dev(shell: Shell, options: DevOptions): Promise<void> {
  const listen = parseHostPort(options.listen);
  if (!listen) throw new CommandFailure('usage', `--listen: ${options.listen} is not host:port`);
  if (!isLoopbackHost(listen.host))
    throw new CommandFailure('usage', `--listen: ${options.listen} is beyond loopback`, {
      next: 'dev has no authentication. Use `runmesh coordinator` and `runmesh agent` with a token.',
    });
  const { clock, chance, terminal } = shell;
  const log = (name: string): Log =>
    options.jsonLogs ? openLog(name, 'info') : openHumanLog(terminal, clock);
  const data = resolve(options.data);
  const started: Serving[] = [];
  const stopAll: Serving = {
    // The agent first: its goodbye reaches a coordinator that still listens.
    stop: async () => {
      for (const serving of started.toReversed()) await serving.stop();
    },
  };
  try {
    const { startCoordinator } = await import('../../coordinator/main.ts');
    const settings = { listen: options.listen, data: join(data, 'coordinator'), drainSeconds: 2 };
    const config = await loadCoordinatorConfig({ env: {}, flags: settings });
    const coordinator = await startCoordinator(config, { clock, chance, log: log('coordinator') });
    started.push(coordinator);
    started.push(await startDevAgent(shell, coordinator.url, join(data, 'agent'), log('agent')));
    if (!options.jsonLogs) terminal.error(welcome(shell, coordinator.url, options.data));
  } catch (thrown) {
    await stopAll.stop();
    throw thrown;
  }
  await serveUntilStopped(stopAll, {
    clock,
    stopWithinMs: STOP_WITHIN_MS,
    onStop: () => options.jsonLogs || terminal.error('\nstopping; Ctrl-C again leaves at once\n'),
    onLate: () => terminal.error('did not stop in time; leaving\n'),
  });
}

async function startDevAgent(shell: Shell, url: string, data: string, log: Log): Promise<Serving> {
  const { startAgent } = await import('../../agent/main.ts');
  const config = await loadAgentConfig({
    env: {},
    flags: {
      coordinator: url.replace(/^http/, 'ws'),
      listen: '127.0.0.1:0',
      data,
      allowPrivate: [...LOOPBACK],
      toolsPath: toolsPathOf(shell.env),
    },
  });
  return startAgent(config, { clock: shell.clock, chance: shell.chance, log });
}

function welcome(shell: Shell, url: string, data: string): string {
  const bold = (text: string): string => coloured(shell.terminal, 'bold', text);
  const set = url === DEFAULT_URL ? '' : `RUNMESH_URL=${url} `;
  return `
  ${bold('runmesh')} ${shell.version} at ${bold(url)}, data in ${data}

  Deploy an app, then call it, in a second terminal:
    ${set}runmesh deploy examples/hello/app.yaml
    ${set}runmesh run demo/hello --input '{"name":"you"}'

  From JavaScript, with the client you have (@fal-ai/client):
    fal.config({
      credentials: 'dev',
      requestMiddleware: async (request) => ({
        ...request,
        url: request.url
          .replace('https://queue.fal.run', '${url}/queue')
          .replace('https://fal.run', '${url}/run')
          .replace('https://rest.fal.ai', '${url}/rest'),
      }),
    });
    const { data } = await fal.subscribe('demo/hello', { input: { name: 'you' } });

`;
}
