// A docker-registry on a free loopback port, and pushing into it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Tools } from '../../test/tools/tools.ts';
import type { BuiltImage } from './build-images.ts';
import { run } from './run.ts';

export interface Registry {
  /** `http://127.0.0.1:41234` */
  readonly url: string;
  /** `127.0.0.1:41234`, what image references begin with. */
  readonly host: string;
  readonly pid: number;
  /** Ends it; what was pushed stays in its folder. Safe to call twice. */
  stop(): Promise<void>;
}

/** Starts a registry that keeps its blobs in `dataDir`; ready when this resolves. */
export async function startRegistry(options: { tools: Tools; dataDir: string }): Promise<Registry> {
  const { tools, dataDir } = options;
  mkdirSync(dataDir, { recursive: true });
  const config = join(dataDir, 'config.json'); // YAML is a superset
  const settings = {
    version: 0.1,
    log: { level: 'info', formatter: 'json', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(dataDir, 'blobs') }, delete: { enabled: true } },
    http: { addr: '127.0.0.1:0' },
  };
  writeFileSync(config, JSON.stringify(settings));
  const child = spawn(tools.path('docker-registry'), ['serve', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '', OTEL_TRACES_EXPORTER: 'none' },
  });
  const forgotten = (): void => void child.kill('SIGKILL');
  process.once('exit', forgotten);
  const ended = once(child, 'close').then(
    () => process.off('exit', forgotten),
    () => undefined,
  );
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL'); // it keeps nothing in memory that matters
    await ended;
  };
  const lines: string[] = [];
  const host = await new Promise<string>((resolve, reject) => {
    const fail = (): void =>
      reject(new Error(`docker-registry did not start: ${lines.slice(-3).join(' ')}`));
    child.on('error', reject).on('close', fail);
    // Read to its end, also later: a full pipe would stop it.
    createInterface(child.stderr).on('line', (line) => {
      const address = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (address) resolve(address);
      else if (lines.length < 100) lines.push(line);
    });
  });
  return { url: `http://${host}`, host, pid: child.pid ?? 0, stop };
}

/** Copies an image from a layout folder to a registry: `push(tools, images.ocr, '127.0.0.1:5000/demo/ocr:1')`. */
export async function push(tools: Tools, image: BuiltImage, ref: string): Promise<void> {
  const flags = ['--insecure-policy', 'copy', '--quiet', '--dest-tls-verify=false'];
  await run(tools.path('skopeo'), [
    ...flags,
    `oci:${image.layout}:${image.tag}`,
    `docker://${ref}`,
  ]);
}
