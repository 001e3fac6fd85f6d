// Node 26 needs libatomic.so.1, which a small Debian lacks and Node 20 does not need. When the Node
// from npm does not start for want of it, this fetches Debian's libatomic1 without root (apt with
// a state of its own, signatures checked, nothing installed) and puts a launcher that offers it in
// the place of `node_modules/.bin/node`, so that scripts, tsc, tap and the units all find it.
// Plain JavaScript, for the same reason as bootstrap.mjs.

import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, realpathSync } from 'node:fs';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const ADVICE =
  'Install it with your package manager: `apt-get install libatomic1` (Debian, Ubuntu), ' +
  '`dnf install libatomic` (Fedora).';

/** Makes sure that `node` (in node_modules/.bin) starts; returns why it does not, or undefined. */
export function whyNodeFails(node) {
  const first = tryNode(node);
  if (first === undefined || !first.includes('libatomic.so.1')) return first;
  process.stderr.write(
    'runmesh: fetching libatomic1, which Node 26 needs and this machine lacks …\n',
  );
  const folder = join(dirname(dirname(node)), '.runmesh-lib');
  const failed = fetchLibatomic(folder);
  if (failed !== undefined) return `Node 26 needs libatomic.so.1. ${ADVICE}\n  (${failed})`;
  putLauncher(node, folder);
  return tryNode(node);
}

function tryNode(node) {
  const { status, stderr, error } = spawnSync(node, ['--version'], { encoding: 'utf8' });
  return status === 0 ? undefined : `${node} does not start: ${error?.message ?? stderr.trim()}`;
}

/** Unpacks Debian's libatomic1 and leaves its files in `folder`; returns what went wrong. */
function fetchLibatomic(folder) {
  const work = mkdtempSync(join(tmpdir(), 'runmesh-libatomic-'));
  try {
    for (const part of ['lists/partial', 'cache/archives/partial', 'unpacked']) {
      mkdirSync(join(work, part), { recursive: true });
    }
    const state = { State: work, 'State::Lists': join(work, 'lists'), Cache: join(work, 'cache') };
    const options = Object.entries(state).flatMap(([key, value]) => ['-o', `Dir::${key}=${value}`]);
    const apt = [
      '-q',
      ...options,
      '-o',
      'Acquire::Languages=none',
      '-o',
      'APT::Sandbox::User=root',
    ];
    run('apt-get', [...apt, '-o', 'APT::Update::Post-Invoke-Success=', 'update'], work);
    run('apt-get', [...apt, 'download', 'libatomic1'], work);
    const deb = readdirSync(work).find((name) => name.endsWith('.deb'));
    run('dpkg', ['-x', deb, join(work, 'unpacked')], work);
    const triplet = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
    rmSync(folder, { recursive: true, force: true });
    run('cp', ['-a', join(work, 'unpacked', 'usr', 'lib', triplet), folder], work);
    return undefined;
  } catch (error) {
    return error.message;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function run(file, args, cwd) {
  const env = { ...process.env, LC_ALL: 'C' };
  const { status, stderr, error } = spawnSync(file, args, { cwd, env, encoding: 'utf8' });
  if (status === 0) return;
  throw new Error(`${file} ${args.at(-1)}: ${error?.message ?? stderr.trim().split('\n').at(-1)}`);
}

function putLauncher(node, folder) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const path = `${quote(folder)}\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}`;
  const real = realpathSync(node);
  writeFileSync(
    `${node}.part`,
    `#!/bin/sh\nexport LD_LIBRARY_PATH=${path}\nexec ${quote(real)} "$@"\n`,
  );
  chmodSync(`${node}.part`, 0o755);
  renameSync(`${node}.part`, node);
}
