// A real docker-registry on a free loopback port for a test, with or without a password.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** What a registry with a password takes. */
export const REGISTRY_LOGIN = { username: 'runmesh', password: 'secret' };
const LOGIN_LINE = 'runmesh:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n';

export interface RegistryProcess extends AsyncDisposable {
  /** `127.0.0.1:41234` */
  host: string;
}

export async function startRegistryProcess(
  program: string,
  folder: string,
  options: { password?: boolean } = {},
): Promise<RegistryProcess> {
  await mkdir(folder, { recursive: true });
  const users = join(folder, 'users');
  await writeFile(users, LOGIN_LINE);
  const settings = {
    version: 0.1,
    log: { level: 'info', formatter: 'json', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, 'blobs') } },
    http: { addr: '127.0.0.1:0' },
    ...(options.password ? { auth: { htpasswd: { realm: 'test', path: users } } } : {}),
  };
  await writeFile(join(folder, 'config.json'), JSON.stringify(settings));
  const child = spawn(program, ['serve', join(folder, 'config.json')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '', OTEL_TRACES_EXPORTER: 'none' },
  });
  const ended = once(child, 'close');
  const host = await new Promise<string>((resolve, reject) => {
    child.on('error', reject).on('close', () => reject(new Error('docker-registry ended')));
    createInterface(child.stderr).on('line', (line) => {
      const address = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (address) resolve(address);
    });
  });
  return {
    host,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
