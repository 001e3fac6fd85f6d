// What the npm scripts start: `node cli/bootstrap.mjs <script.ts> [args…]` on any Node >= 20.
// Brings the packages of package-lock.json (Node 26 is one of them), then runs the script with it.
// Plain JavaScript without packages: on a clean checkout nothing else can run.
//
//   B1  node_modules counts as complete only with a stamp that holds the hash of the lock file; npm
//       removes the stamp with the folder, and it is written after npm has succeeded.
//   B2  One installer at a time per checkout; those who waited look at the stamp again.
//   B3  Our exit code is the script's, or 128 + the number of the signal that ended it.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { takeFolderLock } from './folder-lock.mjs';
import { whyNodeFails } from './libatomic.mjs';

// From <sysexits.h>: the caller can tell "not installed" from a script's own failure.
const EX_USAGE = 64;
const EX_UNAVAILABLE = 69;

const root = dirname(dirname(realpathSync(fileURLToPath(import.meta.url))));
const modules = join(root, 'node_modules');
const bin = join(modules, '.bin');
const lockFile = join(root, 'package-lock.json');
const stampFile = join(modules, '.runmesh-lock-sha256');

class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const readText = (path) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);

/** Refuses machines for which no Node 26 is in the lock file, naming what this one is. */
function requirePlatform() {
  const here = `${process.platform}-${process.arch}`;
  const supported = ['linux-x64', 'linux-arm64'];
  if (!supported.includes(here)) {
    const list = supported.join(' and ');
    throw new Refusal(EX_UNAVAILABLE, `runmesh runs on ${list}; this machine is ${here}.`);
  }
  if (process.report.getReport().header.glibcVersionRuntime === undefined) {
    const message =
      'runmesh needs a Linux with glibc (Debian, Ubuntu, Fedora, …); this one has musl.';
    throw new Refusal(EX_UNAVAILABLE, message);
  }
}

/** True for a package that npm leaves out on this machine by its own rules. */
function isElsewhere(entry) {
  const excludes = (list, value) =>
    list !== undefined &&
    (list.includes(`!${value}`) || !(list.includes(value) || list[0][0] === '!'));
  return excludes(entry.os, process.platform) || excludes(entry.cpu, process.arch);
}

/** True when somebody already ran `npm ci` by hand: npm's own record agrees with the lock file. */
function isInstalledByHand(lockText) {
  const record = readText(join(modules, '.package-lock.json'));
  if (record === undefined) return false;
  const have = JSON.parse(record).packages;
  const want = JSON.parse(lockText).packages;
  delete want[''];
  for (const [path, entry] of Object.entries(want)) {
    const installed = have[path];
    if (installed === undefined && !entry.optional && !isElsewhere(entry)) return false;
    if (installed !== undefined && installed.integrity !== entry.integrity) return false;
  }
  return Object.keys(have).every((path) => path in want) && existsSync(join(bin, 'node'));
}

/** What npm says is wrong: its first error lines, since its usage text follows them. */
function complaint(output) {
  const lines = output.split('\n').filter((line) => line.replace(/^npm error/, '').trim() !== '');
  const errors = lines.filter((line) => line.startsWith('npm error'));
  return errors.length > 0 ? errors.slice(0, 12) : lines.slice(-12);
}

/** Runs `npm ci`, quiet unless it fails. */
function install() {
  process.stderr.write('runmesh: installing npm packages (once, about 350 MB) …\n');
  const flags = ['--no-audit', '--no-fund', '--no-progress', '--include=dev', '--include=optional'];
  return new Promise((resolve, reject) => {
    // Nothing here needs install scripts: the native parts come prebuilt inside their packages.
    const child = spawn('npm', ['ci', '--ignore-scripts', ...flags], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    const keep = (chunk) => (output = (output + chunk).slice(-8192));
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const stopForwarding = forwardSignals(child);
    child.on('error', (error) => {
      const how = 'install it (on Debian: it comes with https://nodejs.org/ or `apt install npm`)';
      const message =
        error.code === 'ENOENT' ? `npm was not found on PATH; ${how}.` : `npm: ${error.message}`;
      reject(new Refusal(EX_UNAVAILABLE, message));
    });
    child.on('close', (code, signal) => {
      stopForwarding();
      if (code === 0) return resolve();
      if (signal !== null) return reject(new Refusal(exitCode(code, signal), `npm ci: ${signal}`));
      const tail = complaint(output).join('\n  ');
      const advice =
        'Check the network and the registry (`npm ping`), then run the same command again.';
      reject(new Refusal(EX_UNAVAILABLE, `npm ci failed with code ${code}:\n  ${tail}\n${advice}`));
    });
  });
}

/** Makes node_modules agree with package-lock.json (B1, B2). */
async function ensureInstalled() {
  const lockText = readFileSync(lockFile, 'utf8');
  const hash = createHash('sha256').update(lockText).digest('hex');
  const isCurrent = () => readText(stampFile) === hash;
  if (isCurrent()) return;
  requirePlatform();
  const release = await takeFolderLock(join(root, '.locks', 'npm-ci'), (pid) =>
    process.stderr.write(
      `runmesh: waiting for process ${pid}, which is installing npm packages …\n`,
    ),
  );
  try {
    if (isCurrent()) return;
    if (!isInstalledByHand(lockText)) await install();
    if (!existsSync(join(bin, 'node'))) {
      const name = `node-linux-${process.arch}`;
      throw new Refusal(
        EX_UNAVAILABLE,
        `npm ci left out ${name}: is "optional" in npm's omit list?`,
      );
    }
    const failure = whyNodeFails(join(bin, 'node'));
    if (failure !== undefined) throw new Refusal(EX_UNAVAILABLE, failure);
    writeFileSync(stampFile, hash);
  } finally {
    release();
  }
}

/**
 * Passes our signals on to the child. Ctrl-C in a terminal reaches the whole process group, the
 * child included, so that SIGINT is passed on only when no terminal can have sent it: twice would
 * read as "do not clean up, just go".
 */
function forwardSignals(child) {
  const hasTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  const handlers = ['SIGINT', 'SIGTERM', 'SIGHUP'].map((signal) => {
    const handler = () => {
      if (signal !== 'SIGINT' || !hasTerminal) child.kill(signal);
    };
    process.on(signal, handler);
    return [signal, handler];
  });
  return () => handlers.forEach(([signal, handler]) => process.off(signal, handler));
}

const exitCode = (code, signal) => code ?? 128 + (constants.signals[signal] ?? 0);

/** Runs the script on the Node that the lock file names; resolves with its exit code (B3). */
function runScript(script, args) {
  const path = [bin, process.env.PATH].filter(Boolean).join(delimiter);
  return new Promise((resolve, reject) => {
    const child = spawn(join(bin, 'node'), [script, ...args], {
      stdio: 'inherit',
      env: { ...process.env, PATH: path },
    });
    forwardSignals(child);
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(exitCode(code, signal)));
  });
}

async function main([script, ...args]) {
  if (script === undefined) {
    throw new Refusal(EX_USAGE, 'usage: node cli/bootstrap.mjs <script.ts> [arguments…]');
  }
  await ensureInstalled();
  return runScript(script, args);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`runmesh: ${error instanceof Refusal ? error.message : error.stack}\n`);
  process.exitCode = error instanceof Refusal ? error.code : 70;
}
