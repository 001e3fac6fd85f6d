// Command line flags of `coordinator` and `agent`, made from their configuration tables, so that a setting cannot exist
// without its flag and its line of help.
import { Option, type Command } from 'commander';
import type { ConfigTable } from '../shared/config.ts';

/** Flags that are given once per entry, by the key they fill. */
const repeated: Record<string, string> = {
  labels: '--label <name=value>',
  allowPrivate: '--allow-private <network>',
  allowedHosts: '--allowed-host <name>',
  allowedOrigins: '--allowed-origin <origin>',
};
/** Flags without a value. */
const switches = new Set(['trustProxy']);

/** Adds `--config`, `--print-config` and one flag for each row of the table. */
export function addConfigFlags(command: Command, table: ConfigTable): void {
  command
    .option('--config <file>', 'read settings from a YAML file; flags and RUNMESH_… variables win')
    .option('--print-config', 'print the settings in force, secrets left out, and leave');
  for (const [key, row] of Object.entries(table)) {
    const plain = switches.has(key) ? '' : ` <${valueOf(key)}>`;
    const option = new Option(repeated[key] ?? `--${kebabOf(key)}${plain}`, row.doc);
    if (repeated[key]) option.argParser(collect);
    command.addOption(option);
  }
}

/** What was given on the command line, by the keys of the table. */
export function flagsOf(
  table: ConfigTable,
  options: Record<string, unknown>,
): Record<string, unknown> {
  return Object.fromEntries(Object.keys(table).map((key) => [key, options[optionName(key)]]));
}

function optionName(key: string): string {
  const flags = repeated[key];
  return flags === undefined ? key : new Option(flags).attributeName();
}

function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}

function kebabOf(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

const VALUES: Record<string, string> = {
  listen: 'host:port',
  advertise: 'host:port',
  coordinator: 'url',
  publicUrl: 'url',
  data: 'folder',
  toolsPath: 'folders',
  memory: 'size',
  cpu: 'cores',
  name: 'name',
  drainSeconds: 'seconds',
  token: 'secret',
  logLevel: 'level',
};

function valueOf(key: string): string {
  return VALUES[key] ?? (key.endsWith('Ms') ? 'ms' : 'value');
}
