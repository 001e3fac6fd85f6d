// `runmesh deploy`: reads an app file, packs and uploads its folder, makes it the current revision, and says how to
// call it.
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Command } from 'commander';
import { parseAppFile } from '../../shared/app-file.ts';
import { APP_NAME, type AppSpec } from '../../shared/app-spec.ts';
import type { Client, Deployed } from '../client.ts';
import { CommandFailure } from '../command-failure.ts';
import { openProgress } from '../progress.ts';
import { sizeText } from '../quantity.ts';
import { outJson, withClient, type Shell } from '../shell.ts';
import { coloured } from '../terminal.ts';
import { uploadDir } from '../upload-dir.ts';

const EXAMPLES = `
Examples:
  $ runmesh deploy app.yaml
  $ runmesh deploy app.yaml --app acme/hello--staging
  $ revision=$(runmesh deploy app.yaml --json | jq -r .revision)`;

export function fillDeploy(command: Command, shell: Shell): void {
  command
    .description('Deploys an app: what the file says becomes its current revision.')
    .argument('<file>', 'the app file, YAML')
    .option('--app <owner/alias>', 'deploy under another name than the file says')
    .option('--json', 'print JSON')
    .addHelpText('after', EXAMPLES)
    .action((file: string, options: { app?: string; json?: boolean }) =>
      withClient(shell, (client) => deploy(shell, client, file, options)),
    );
}

async function deploy(
  shell: Shell,
  client: Client,
  file: string,
  options: { app?: string; json?: boolean },
): Promise<void> {
  const spec = await readSpec(file, options.app);
  const progress = openProgress(shell.terminal, shell.clock);
  let body = spec;
  let uploaded: { digest: string; sizeBytes: number } | undefined;
  try {
    if (spec.dir !== undefined) {
      progress.show('pack', `packing ${spec.dir}`);
      const folder = resolve(dirname(file), spec.dir);
      const dir = await uploadDir(client, folder, (sizeBytes) =>
        progress.show('upload', `uploading ${sizeText(sizeBytes)}`),
      );
      uploaded = dir;
      body = { ...spec, dir_digest: dir.digest, dir_size_bytes: dir.sizeBytes };
    }
    progress.show('deploy', spec.image ? `deploying, resolving ${spec.image}` : 'deploying');
    const deployed = await client.deploy(body);
    progress.end();
    if (options.json) outJson(shell, { ...deployed, ...urls(client, deployed.app) });
    else shell.terminal.out(deployedText(client, deployed, uploaded));
    for (const warning of warningsOf(deployed))
      shell.terminal.error(`${coloured(shell.terminal, 'yellow', 'warning:')} ${warning}\n`);
  } finally {
    progress.end();
  }
}

async function readSpec(file: string, app: string | undefined): Promise<AppSpec> {
  if (app !== undefined && !APP_NAME.test(app))
    throw new CommandFailure('usage', `--app: ${app} is not owner/alias`, {
      next: 'Use lowercase letters, digits and -, like acme/hello.',
    });
  const text = await readFile(file, 'utf8');
  const spec = parseAppFile(text, file);
  return app === undefined ? spec : { ...spec, app };
}

function urls(client: Client, app: string): { url: string; queue_url: string } {
  const base = client.http.url;
  return { url: `${base}/run/${app}`, queue_url: `${base}/queue/${app}` };
}

function deployedText(
  client: Client,
  { app, number, revision, imageDigest }: Deployed,
  uploaded: { digest: string; sizeBytes: number } | undefined,
): string {
  const { url, queue_url } = urls(client, app);
  const lines = [
    `${app} revision ${number} (${revision}) is deployed.`,
    ...(imageDigest === undefined ? [] : [`  image   ${imageDigest}`]),
    ...(uploaded ? [`  folder  ${uploaded.digest} (${sizeText(uploaded.sizeBytes)})`] : []),
    `  call    runmesh run ${app} --input '{}'`,
    `  direct  POST ${url}`,
    `  queue   POST ${queue_url}`,
  ];
  return `${lines.join('\n')}\n`;
}

function warningsOf({ inactive, warnings }: Deployed): string[] {
  const inert = inactive.map((field) => `${field}: is set, but does nothing in this version`);
  return [...inert, ...warnings];
}
