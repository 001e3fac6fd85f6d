// The Debian programs that tests, demo and bench need: found on the machine, or fetched once into a
// folder of ours (`.tools`, or RUNMESH_TOOLS). Needs no root and starts nothing.
//
//   T1  A program that is already on PATH is used as it is; only what is missing is fetched.
//   T2  Nothing here throws for want of a program: it is listed as missing, with the reason, and
//       the caller says what it skips. Asking `path()` for a missing one is a bug and throws.
//   T3  Calls beside each other (several test files, several processes) fetch once.

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { takeFolderLock } from '../../cli/folder-lock.mjs';
import { Apt, whyNoApt } from './apt.ts';
import { catalog, toolNames, type Group, type ToolName } from './catalog.ts';
import { command, complaint, isProgram } from './command.ts';
import { launch, unpack } from './unpack.ts';

/** Where the machine keeps administrators' programs: not on everybody's PATH. */
const ADMIN_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];
/** A failed fetch is not tried again by each test file of a run, only by the next run. */
const FAILURE_HOLDS_MS = 300_000;

/** A program that cannot be had here. */
export interface MissingTool {
  readonly name: ToolName;
  readonly group: Group;
  readonly reason: string;
}

/** Where a program was found. */
export interface FoundTool {
  readonly name: ToolName;
  readonly group: Group;
  readonly from: 'machine' | 'fetched';
  /** What to start. */
  readonly path: string;
  /** The program's real file: differs from `path` where a launcher script stands before it. */
  readonly file: string;
}

/** Options of `tools`. */
export interface ToolsOptions {
  readonly folder?: string;
  /** Told once, when something is fetched. */
  readonly say?: (line: string) => void;
  /** Tries again what failed a moment ago. */
  readonly retry?: boolean;
}

/** What `.tools/state.json` remembers. */
interface State {
  readonly fetched: Partial<Record<ToolName, { readonly file: string; readonly entry: string }>>;
  readonly failed: Partial<Record<ToolName, { readonly atMs: number; readonly reason: string }>>;
}

/** The programs of some groups: where they are, and which are missing and why. */
export class Tools {
  readonly found: readonly FoundTool[];
  readonly missing: readonly MissingTool[];
  /** The folder to put first on PATH: it holds every program that PATH lacks. */
  readonly bin: string;

  constructor(bin: string, found: readonly FoundTool[], missing: readonly MissingTool[]) {
    this.bin = bin;
    this.found = found;
    this.missing = missing;
  }

  /** What to start for `name`. Throws when it is missing: ask `lacks` first. */
  path(name: ToolName): string {
    return this.#get(name).path;
  }

  /** The program file itself, for copying (busybox into an image). */
  file(name: ToolName): string {
    return this.#get(name).file;
  }

  /** Why a test that needs these programs cannot run, for tap's `skip`; false when it can. */
  lacks(...names: readonly ToolName[]): string | false {
    const missing = this.missing.filter((tool) => names.includes(tool.name));
    const reasons = missing.map((tool) => `${tool.name}: ${tool.reason}`);
    return reasons.length === 0 ? false : reasons.join('; ');
  }

  /** This process's environment with our folder first on PATH, or another environment's. */
  env(base: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
    const path = [this.bin, ...(base['PATH'] ?? '').split(':').filter((f) => f !== this.bin)];
    return { ...base, PATH: path.join(':') };
  }

  #get(name: ToolName): FoundTool {
    const tool = this.found.find((candidate) => candidate.name === name);
    if (tool !== undefined) return tool;
    throw new Error(this.lacks(name) || `${name} was not asked for: its group is missing`);
  }
}

/** Finds or fetches the programs of `groups`. Instant when they are there (T1, T3). */
export async function tools(groups: readonly Group[], options: ToolsOptions = {}): Promise<Tools> {
  const folder = resolve(options.folder ?? toolsFolder());
  const names = toolNames(groups);
  const first = survey(names, folder);
  if (lacking(first, folder, options).length === 0) return first;
  const noApt = whyNoApt();
  if (noApt !== undefined) return withReason(first, noApt);
  try {
    const release = await takeFolderLock(join(folder, 'lock'));
    try {
      const wanted = lacking(survey(names, folder), folder, options);
      if (wanted.length > 0) await fetchTools(wanted, folder, options);
    } finally {
      release();
    }
  } catch (error) {
    return withReason(first, `fetching failed: ${messageOf(error)}`);
  }
  return survey(names, folder);
}

/** The folder that holds what was fetched: RUNMESH_TOOLS, or `.tools` in the checkout. */
export function toolsFolder(): string {
  return process.env['RUNMESH_TOOLS'] || resolve(import.meta.dirname, '../../.tools');
}

/** Why this process cannot make mounts and network namespaces; false when it can. For `skip`. */
export async function skipWithoutRoot(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'not root';
  const ended = await command('unshare', ['--mount', '--net', 'true']);
  return ended.code === 0 ? false : 'no right to make namespaces here';
}

function lacking(seen: Tools, folder: string, options: ToolsOptions): ToolName[] {
  const { failed } = readState(folder);
  const isHeld = (name: ToolName): boolean =>
    options.retry !== true && Date.now() - (failed[name]?.atMs ?? 0) < FAILURE_HOLDS_MS;
  return seen.missing.map((tool) => tool.name).filter((name) => !isHeld(name));
}

/** Looks without fetching. */
function survey(names: readonly ToolName[], folder: string): Tools {
  const bin = join(folder, 'bin');
  const { fetched, failed } = readState(folder);
  const found: FoundTool[] = [];
  const missing: MissingTool[] = [];
  for (const name of names) {
    const { group } = catalog[name];
    const onMachine = findOnMachine(name, bin);
    const { file, entry } = fetched[name] ?? {};
    if (onMachine !== undefined) {
      found.push({ name, group, from: 'machine', path: onMachine, file: onMachine });
    } else if (file !== undefined && entry === entryHash(name) && isProgram(join(bin, name))) {
      found.push({ name, group, from: 'fetched', path: join(bin, name), file });
    } else {
      missing.push({ name, group, reason: failed[name]?.reason ?? 'not fetched' });
    }
  }
  return new Tools(bin, found, missing);
}

/** A program on PATH, or in an administrators' folder: then linked, so that our bin has it. */
function findOnMachine(name: ToolName, bin: string): string | undefined {
  const onPath = (process.env['PATH'] ?? '').split(':').filter((f) => f !== '' && f !== bin);
  const direct = onPath.map((folder) => join(folder, name)).find(isProgram);
  // A dynamic busybox would not run inside an image that holds nothing else.
  if (name === 'busybox' && direct !== undefined && !isStatic(direct)) return undefined;
  if (direct !== undefined) return direct;
  const admin = ADMIN_FOLDERS.map((folder) => join(folder, name)).find(isProgram);
  if (admin === undefined) return undefined;
  mkdirSync(bin, { recursive: true });
  const aside = join(bin, `.${name}.${process.pid}`);
  rmSync(aside, { force: true });
  symlinkSync(admin, aside);
  renameSync(aside, join(bin, name));
  return admin;
}

/** True for a program without an interpreter segment, i.e. one that needs no shared libraries. */
function isStatic(path: string): boolean {
  const elf = readFileSync(path);
  if (elf.toString('latin1', 0, 4) !== '\x7fELF' || elf[4] !== 2) return false;
  const start = Number(elf.readBigUInt64LE(32));
  const [size, count] = [elf.readUInt16LE(54), elf.readUInt16LE(56)];
  const PT_INTERP = 3;
  const headers = Array.from({ length: count }, (_, i) => elf.readUInt32LE(start + i * size));
  return !headers.includes(PT_INTERP);
}

/** Fetches, unpacks and tries programs, then writes down how it went. The lock is held. */
async function fetchTools(
  names: readonly ToolName[],
  folder: string,
  options: ToolsOptions,
): Promise<void> {
  options.say?.(`fetching Debian packages for ${names.join(', ')} into ${folder} …`);
  const before = readState(folder);
  const fetched = { ...before.fetched };
  const failed = { ...before.failed };
  const fail = (name: ToolName, error: unknown): void => {
    failed[name] = { atMs: Date.now(), reason: messageOf(error) };
  };
  try {
    const apt = new Apt(join(folder, 'apt'));
    await apt.update();
    for (const batch of await batches(apt, names, fail)) {
      const root = await fetchRoot(apt, batch.packages, folder);
      for (const name of batch.names) {
        try {
          fetched[name] = { file: await install(name, root, folder), entry: entryHash(name) };
          delete failed[name];
        } catch (error) {
          fail(name, error);
        }
      }
    }
  } catch (error) {
    for (const name of names) fail(name, `fetching failed: ${messageOf(error)}`);
  }
  writeState(folder, { fetched, failed });
}

/** Programs with the packages they need. */
interface Batch {
  readonly names: readonly ToolName[];
  readonly packages: readonly string[];
}

/** All programs at once, or one by one when this distribution lacks some package. */
async function batches(
  apt: Apt,
  names: readonly ToolName[],
  fail: (name: ToolName, error: unknown) => void,
): Promise<Batch[]> {
  const solve = async (some: readonly ToolName[]): Promise<Batch> => {
    const roots = new Set(some.flatMap((name) => [...catalog[name].packages]));
    return { names: some, packages: await apt.closure([...roots]) };
  };
  try {
    return [await solve(names)];
  } catch {
    const solved: Batch[] = [];
    for (const name of names) {
      await solve([name]).then(
        (batch) => solved.push(batch),
        (error: unknown) => fail(name, error),
      );
    }
    return solved;
  }
}

/** Downloads and unpacks packages into a tree named after them; an existing one is taken as it is. */
async function fetchRoot(apt: Apt, packages: readonly string[], folder: string): Promise<string> {
  const root = join(folder, 'root', hash(packages.toSorted().join(' ')).slice(0, 12));
  if (statSync(root, { throwIfNoEntry: false }) !== undefined) return root;
  const debs = join(folder, 'debs');
  rmSync(debs, { recursive: true, force: true });
  mkdirSync(debs, { recursive: true });
  const files = await apt.download(packages, debs).catch(async () => {
    // The lists may name versions that the archive has replaced since.
    await apt.update(true);
    return apt.download(packages, debs);
  });
  await unpack(files, root);
  rmSync(debs, { recursive: true, force: true });
  return root;
}

/** Puts the launcher in place and tries the program; returns its real file. */
async function install(name: ToolName, root: string, folder: string): Promise<string> {
  const place = { root, binFolder: join(folder, 'bin'), libFolder: join(folder, 'lib') };
  mkdirSync(place.binFolder, { recursive: true });
  const file = launch(name, catalog[name], place);
  const ended = await command(join(place.binFolder, name), catalog[name].probe);
  if (ended.code !== 0) throw new Error(`does not run here: ${complaint(ended)}`);
  return file;
}

function readState(folder: string): State {
  try {
    return JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as State;
  } catch {
    return { fetched: {}, failed: {} };
  }
}

function writeState(folder: string, state: State): void {
  const path = join(folder, 'state.json');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.part`, `${JSON.stringify(state, undefined, 2)}\n`);
  renameSync(`${path}.part`, path);
}

/** A changed entry of the catalog makes what was fetched for it stale. */
const entryHash = (name: ToolName): string => hash(JSON.stringify(catalog[name])).slice(0, 12);

const hash = (text: string): string => createHash('sha256').update(text).digest('hex');

const withReason = (seen: Tools, reason: string): Tools =>
  new Tools(
    seen.bin,
    seen.found,
    seen.missing.map((tool) => ({ ...tool, reason })),
  );

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
