// Debian packages without root: apt with a state of its own under one folder. It reads the machine's
// package sources and proxies, and writes nothing outside the folder. Nothing is installed, so no
// maintainer script runs and no daemon starts.
//
//   P1  apt solves against an *empty* machine, so that the same packages come out everywhere; what
//       apt and the essential packages themselves need is then taken off, because a machine that
//       can run apt has it.
//   P2  apt checks every file against the signed index; we never take a file by its URL.

import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { command, complaint, isProgram } from './command.ts';
import { debianSources } from './debian-sources.ts';

const LISTS_ARE_FRESH_MS = 12 * 3600_000;

/** What is on each machine where apt runs: apt, and what `Essential: yes` names or pulls in. */
const ESSENTIAL =
  'apt base-files base-passwd bash coreutils dash dpkg findutils grep gzip libc-bin sed tar';

/** A package that only brings libraries: the only ones we need of what apt adds by itself. */
const isLibrary = (name: string): boolean => /^lib/.test(name) && !/perl/.test(name);

/** Settings that keep apt inside `folder`. Read after the machine's own, so that they win. */
function settings(folder: string): string {
  return `// Written anew at each run.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "${folder}";
Dir::State::Lists "${folder}/lists";
Dir::State::status "${folder}/status";
Dir::Cache "${folder}/cache";
Dir::Etc::SourceList "${folder}/debian.sources";
Dir::Etc::SourceParts "/dev/null";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
APT::Update::Error-Mode "any";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
`;
}

/** apt with its state in `folder`. */
export class Apt {
  readonly #folder: string;
  readonly #args: readonly string[];

  constructor(folder: string) {
    this.#folder = folder;
    for (const part of ['lists/partial', 'cache/archives/partial']) {
      mkdirSync(join(folder, part), { recursive: true });
    }
    writeFileSync(join(folder, 'status'), '');
    writeFileSync(join(folder, 'debian.sources'), debianSources());
    writeFileSync(join(folder, 'apt.conf'), settings(folder));
    this.#args = ['-c', join(folder, 'apt.conf')];
  }

  /** Brings the package lists up to date unless they are from today. */
  async update(force = false): Promise<void> {
    const mark = join(this.#folder, 'lists', 'updated');
    const age = Date.now() - (statSync(mark, { throwIfNoEntry: false })?.mtimeMs ?? 0);
    if (!force && age < LISTS_ARE_FRESH_MS) return;
    await this.#run(['update', '-q'], 180_000);
    writeFileSync(mark, '');
  }

  /** The wanted packages and every library package below them that a bare Debian may lack (P1). */
  async closure(wanted: readonly string[]): Promise<string[]> {
    const base = new Set(await this.#solve(ESSENTIAL.split(' ')));
    const all = await this.#solve(wanted);
    return all.filter((name) => wanted.includes(name) || (isLibrary(name) && !base.has(name)));
  }

  /** Downloads packages into `into` (which must exist) and returns the files there (P2). */
  async download(packages: readonly string[], into: string): Promise<string[]> {
    await this.#run(['download', '-q', ...packages], 600_000, into);
    return readdirSync(into)
      .filter((name) => name.endsWith('.deb'))
      .map((name) => join(into, name));
  }

  async #solve(packages: readonly string[]): Promise<string[]> {
    const out = await this.#run(['install', '-y', '--print-uris', '-qq', ...packages], 60_000);
    // 'http://…/runc_1.1.5_amd64.deb' runc_1.1.5_amd64.deb 2709960 SHA256:…
    const lines = out.split('\n').filter((line) => line.startsWith("'"));
    return lines.map((line) => line.split(' ')[1]?.split('_')[0] ?? '').filter((n) => n !== '');
  }

  async #run(args: readonly string[], timeoutMs: number, cwd = this.#folder): Promise<string> {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const ended = await command('apt-get', [...this.#args, ...args], { cwd, env, timeoutMs });
    if (ended.code === 0) return ended.stdout;
    throw new Error(`apt-get ${args[0] ?? ''}: ${complaint(ended)}`);
  }
}

/** Why apt cannot be used here, or undefined when it can. */
export function whyNoApt(osRelease = readOsRelease()): string | undefined {
  const field = (name: string): string =>
    new RegExp(`^${name}="?([^"\n]*)"?$`, 'm').exec(osRelease)?.[1] ?? '';
  const families = `${field('ID')} ${field('ID_LIKE')}`.split(' ');
  if (!families.includes('debian')) return `not Debian (this is ${field('ID') || 'unknown'})`;
  const folders = (process.env['PATH'] ?? '').split(':');
  for (const program of ['apt-get', 'dpkg']) {
    if (!folders.some((folder) => isProgram(join(folder, program)))) return `${program} not found`;
  }
  return undefined;
}

function readOsRelease(): string {
  try {
    return readFileSync('/etc/os-release', 'utf8');
  } catch {
    return '';
  }
}
