// The rival for direct calls: nginx as the same two proxies. caller → nginx → nginx → runner, connections kept on every
// hop, one worker each, no access log, nothing buffered to disk.
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RowParts } from '../row.ts';
import { freePort, waitFor } from '../stage.ts';

export interface NginxHops {
  readonly url: string;
  /** The workers: what the calls cost shows there. */
  readonly pids: readonly number[];
}

export async function startNginxHops(
  parts: Pick<RowParts, 'stage' | 'tools'>,
  targetPort: number,
): Promise<NginxHops> {
  const inner = await startNginx(parts, 'nginx-inner', targetPort);
  const outer = await startNginx(parts, 'nginx-outer', inner.port);
  return { url: `http://127.0.0.1:${outer.port}`, pids: [outer.worker, inner.worker] };
}

async function startNginx(
  { stage, tools }: Pick<RowParts, 'stage' | 'tools'>,
  name: string,
  targetPort: number,
): Promise<{ port: number; worker: number }> {
  const folder = join(stage.folder, name);
  await mkdir(join(folder, 'tmp'), { recursive: true });
  const port = await freePort();
  await writeFile(join(folder, 'nginx.conf'), configOf(folder, port, targetPort));
  const args = ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')];
  const program = stage.start(name, tools.path('nginx'), args, { stopSignal: 'SIGTERM' });
  const worker = await waitFor(`${name} to have a worker`, 5_000, stage.signal, () => {
    if (program.hasEnded) throw new Error(`${name} ended: ${program.tail()}`);
    return workerOf(program.pid);
  });
  return { port, worker };
}

function configOf(folder: string, port: number, targetPort: number): string {
  const scratch = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  return `
daemon off;
${user}
worker_processes 1;
pid ${folder}/nginx.pid;
error_log ${folder}/error.log error;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_timeout 300s;
  keepalive_requests 100000000;
${scratch.map((name) => `  ${name}_temp_path ${folder}/tmp/${name};`).join('\n')}
  upstream next {
    server 127.0.0.1:${targetPort};
    keepalive 256;
    keepalive_requests 100000000;
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://next;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
    }
  }
}
`;
}

function workerOf(master: number): number | undefined {
  const first = readFileSync(`/proc/${master}/task/${master}/children`, 'latin1').split(' ')[0];
  return first ? Number(first) : undefined;
}
