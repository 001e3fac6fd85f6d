// The rival for a cold start: `runc run` of a bundle that lies ready, on the host's network, until its port answers.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { command, complaint } from '../../tools/command.ts';
import type { RowParts } from '../row.ts';
import { freePort } from '../stage.ts';
import { serverArgs } from '../static-image.ts';
import { untilAnswered } from '../until-answered.ts';

interface RuntimeConfig {
  process: { terminal: boolean; args: string[] };
  linux: { namespaces: { type: string }[] };
}

/** One cold start. @returns milliseconds from starting `runc` to the whole answer */
export type PlainStart = (round: number) => Promise<number>;

/** Makes the bundle round `rootfs`, with the configuration that `runc spec` proposes. */
export async function preparePlainRunc(
  { stage, tools }: Pick<RowParts, 'stage' | 'tools'>,
  rootfs: string,
  expect: string,
): Promise<PlainStart> {
  const bundle = dirname(rootfs);
  const runc = tools.path('runc');
  const spec = await command(runc, ['spec', '--bundle', bundle]);
  if (spec.code !== 0) throw new Error(`runc spec: ${complaint(spec)}`);
  const file = join(bundle, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as RuntimeConfig;
  const port = await freePort();
  config.process.terminal = false;
  config.process.args = serverArgs(port);
  config.linux.namespaces = config.linux.namespaces.filter(({ type }) => type !== 'network');
  writeFileSync(file, JSON.stringify(config));
  const state = ['--root', join(stage.folder, 'plain-state')];

  return async (round) => {
    const id = `bench-${process.pid}-${round}`;
    const startMs = performance.now();
    const program = stage.start(`runc-${round}`, runc, [...state, 'run', '--bundle', bundle, id]);
    try {
      await untilAnswered(`http://127.0.0.1:${port}/index.html`, expect, stage.signal, () => {
        if (program.hasEnded) throw new Error(`runc ended: ${program.tail()}`);
      });
      return performance.now() - startMs;
    } finally {
      await command(runc, [...state, 'kill', id, 'KILL']);
      await program.ended;
      await command(runc, [...state, 'delete', '--force', id]);
    }
  };
}
