// What every command is handed: the terminal, the environment, time and chance, and a coordinator to talk to. Made
// once in main.ts; no command reaches for `process` by itself.
import type { Chance } from '../shared/chance.ts';
import type { Clock } from '../shared/clock.ts';
import { openClient, type Client } from './client.ts';
import { openHttp } from './http.ts';
import type { Terminal } from './terminal.ts';

export interface Shell {
  readonly terminal: Terminal;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly chance: Chance;
  /** `runmesh 0.1.0`'s number. */
  readonly version: string;
}

/** Runs `work` with a client and closes it, whatever happens. */
export async function withClient<T>(
  shell: Shell,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const http = openHttp(shell.env);
  try {
    return await work(openClient(http));
  } finally {
    await http.close();
  }
}

/** Prints a listing for programs. */
export function outJson(shell: Shell, value: unknown): void {
  shell.terminal.out(`${JSON.stringify(value, null, 2)}\n`);
}
