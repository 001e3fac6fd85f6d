// The host seam on the real kernel and in memory; the pure parts below it; the network's promises, tried from
// inside real namespaces.
import { execFile, spawn, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, connect, type AddressInfo } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { attributeText } from '../../agent/host/attributes.ts';
import { cgroupTable } from '../../agent/host/cgroup-table.ts';
import { programOnPath, runCommand } from '../../agent/host/command.ts';
import { LinuxHost } from '../../agent/host/linux-host.ts';
import { MemoryHost } from '../../agent/host/memory-host.ts';
import { mountsUnder, parseMountTable } from '../../agent/host/mount-table.ts';
import {
  chooseSubnet,
  dataFolderTag,
  firewallText,
  networkNames,
  overlaps,
  runnerResolvConf,
  subnetText,
} from '../../agent/host/network-plan.ts';
import { plainOptions } from '../../agent/host/overlay.ts';
import { systemClock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import { hostConformance } from '../conformance/host.ts';
import { tools } from '../tools/tools.ts';

const debian = await tools(['runtime', 'images']);
process.env['PATH'] = debian.env()['PATH'];
const data = await mkdtemp(join(tmpdir(), 'runmesh-host-'));
const names = networkNames(dataFolderTag(data));
const host = new LinuxHost({ dataFolder: data, clock: systemClock });
const abilities = await host.abilities();
const why = (...parts: (keyof typeof abilities)[]): string | false => {
  for (const part of parts) {
    const ability = abilities[part];
    if (!ability.yes) return `${part}: ${ability.no}`;
  }
  return false;
};
await mkdir(join(data, 'run', 'conformance'), { recursive: true });
// Timers of the clock keep no process alive; in the agent its servers do.
const alive = setInterval(() => undefined, 1_000);
t.teardown(async () => {
  clearInterval(alive);
  await rm(data, { recursive: true, force: true });
});

t.test('memory host', async (t) =>
  hostConformance(t, () => ({ host: new MemoryHost(), folder: join(data, 'run', 'memory') })),
);

t.test('linux host', { skip: why('containers', 'networks', 'cgroups') }, async (t) =>
  hostConformance(t, () => ({ host, folder: join(data, 'run', 'conformance') })),
);

t.test('commands', async (t) => {
  const clock = systemClock;
  const out = await runCommand('cat', [], { clock, input: 'in' });
  t.equal(out.stdout, 'in');
  const shell = (text: string, more: object = {}): Promise<unknown> =>
    runCommand('sh', ['-c', text], { clock, ...more });
  await t.rejects(shell('echo one >&2; echo two >&2; exit 3'), {
    code: 'HOST_COMMAND_FAILED',
    message: 'sh: exit code 3: two',
    detail: { program: 'sh', exitCode: 3 },
  });
  await t.rejects(shell('kill -9 $$'), { message: 'sh: killed by SIGKILL' });
  await t.rejects(shell('exec sleep 9', { timeoutMs: 30 }), { message: 'sh: no end within 30 ms' });
  await t.rejects(shell('exec yes'), { message: /^sh: more than \d+ bytes of output$/ });
  await t.rejects(runCommand('no-such-program', [], { clock }), { message: /not found on PATH/ });
  const controller = new AbortController();
  const reason = new Failure('SHUTTING_DOWN', 'stop');
  const ends = t.rejects(shell('exec sleep 9', { signal: controller.signal }), reason);
  controller.abort(reason);
  await ends;
  t.equal(
    programOnPath('sh', 'relative:/bin'),
    '/bin/sh',
    'a relative folder on PATH is passed over',
  );
});

t.test('a process without free descriptors fails a start, and lives on', async (t) => {
  // In a process of its own, with few of them.
  const script = `
    const { openSync } = await import('node:fs');
    const [{ runCommand }, { Runc, conmonPaths }, { identify }, { systemClock: clock }] =
      await Promise.all(process.argv.slice(1).map((path) => import(path)));
    const runc = new Runc('/nowhere', clock);
    const said = (work) => work.then(String, (failure) => failure.code);
    try { for (;;) openSync('/dev/null'); } catch {}
    console.log(await said(runCommand('true', [], { clock })));
    console.log(await said(runc.create('a', conmonPaths('/'))));
    console.log(await said(identify(process.pid)));
    await new Promise((resolve) => setTimeout(resolve, 20));
    console.log('alive');`;
  const modules = [
    '../../agent/host/command.ts',
    '../../agent/runner/runc.ts',
    '../../agent/runner/process-identity.ts',
    '../../shared/clock.ts',
  ].map((path) => new URL(path, import.meta.url).href);
  const folder = await mkdtemp(join(tmpdir(), 'runmesh-few-'));
  t.teardown(() => rm(folder, { recursive: true }));
  for (const name of ['runc', 'conmon']) await symlink('/bin/true', join(folder, name));
  const { stdout } = await runCommand(
    'sh',
    [
      ...['-c', 'ulimit -n 64; PATH=$1:$PATH; shift; exec "$@"', 'sh', folder],
      ...[process.execPath, '--input-type=module', '-e', script, ...modules],
    ],
    { clock: systemClock },
  );
  t.strictSame(stdout.trim().split('\n'), [
    'HOST_COMMAND_FAILED',
    'DRIVER_FAILED',
    'EMFILE',
    'alive',
  ]);
});

t.test('mount tables', async (t) => {
  const text =
    '1 0 0:1 / /a\\040b rw - overlay overlay rw,lowerdir=/x\n2 1 0:2 / /cg rw - cgroup cgroup rw,cpu,memory,pids\n';
  const table = parseMountTable(text);
  t.match(table, [
    { target: '/a b', type: 'overlay', options: ['rw', 'lowerdir=/x'] },
    { target: '/cg', type: 'cgroup' },
  ]);
  t.match(cgroupTable(table), { version: 1 });
  t.match(cgroupTable([]), { no: 'no cgroup controller cpu, memory, pids' });
});

t.test('network plan', async (t) => {
  const { bridge, linkPrefix } = networkNames(dataFolderTag('/var/lib/runmesh'));
  t.ok(bridge.length <= 15 && `${linkPrefix}3fd`.length <= 15, 'interface names fit');
  t.not(dataFolderTag('/a'), dataFolderTag('/b'));
  const first = chooseSubnet('00000000', []);
  t.equal(first && subnetText(first), '10.64.0.0/22');
  const second = chooseSubnet('00000000', ['10.64.3.7', 'default', '0.0.0.0/0', 'fe80::/64']);
  t.equal(second && subnetText(second), '10.64.4.0/22');
  const third = chooseSubnet('00000000', ['10.0.0.0/8']);
  t.equal(third && subnetText(third), '172.16.0.0/22');
  t.equal(chooseSubnet('00000000', ['10.0.0.0/8', '172.16.0.0/12']), undefined);
  t.ok(first && overlaps(first, '10.64.0.0/10') && !overlaps(first, '10.64.4.0/22'));
  const golden = await readFile(join(import.meta.dirname, '../golden/firewall.nft'), 'utf8');
  t.equal(first && firewallText(networkNames('0123abcd'), first), golden, 'the firewall');
  const conf = (text: string): string => runnerResolvConf([text], ['192.168.1.5']);
  t.equal(conf('# x\nnameserver 9.9.9.9\nsearch a.b\n'), 'nameserver 9.9.9.9\nsearch a.b\n');
  const fallback = 'nameserver 1.1.1.1\nnameserver 8.8.8.8\n';
  t.equal(conf('nameserver 127.0.0.53\noptions edns0\n'), fallback, 'a stub on loopback');
  t.equal(conf('nameserver 192.168.1.5\nnameserver ::1\n'), fallback, 'the host itself');
});

t.test('extended attributes as text', async (t) => {
  const attributes = new Map([['user.a', new Uint8Array([0, 10, 255])]]);
  t.equal(
    attributeText([{ path: '/a b\n#', attributes }]),
    '# file: /a\\040b\\012#\nuser.a=0sAAr/\n\n',
  );
});

t.test('overlay of many layers with awkward names', { skip: why('containers') }, async (t) => {
  const folder = join(data, 'run', 'many');
  const long = 'x'.repeat(60);
  const lower = Array.from({ length: 100 }, (_, index) => join(folder, `${long}:,${index}`));
  for (const [index, path] of lower.entries()) {
    await mkdir(path, { recursive: true });
    await writeFile(join(path, `file${index}`), String(index));
    await writeFile(join(path, 'same'), String(index));
  }
  const at = {
    upper: join(folder, 'up'),
    work: join(folder, 'wk'),
    target: join(folder, 'merged'),
  };
  for (const path of Object.values(at)) await mkdir(path);
  t.equal(plainOptions({ lower, ...at }), undefined);
  await host.mountOverlay({ lower, ...at });
  t.equal(await readFile(join(at.target, 'file99'), 'utf8'), '99');
  t.equal(await readFile(join(at.target, 'same'), 'utf8'), '0', 'the topmost wins');
  t.notMatch(await readdir(folder), /^\.l/, 'the links are gone');
  t.strictSame(await mountsUnder(folder), [at.target]);
  await host.sweep();
  t.strictSame(await mountsUnder(folder), [], 'a sweep unmounts it');
});

t.test('devices, attributes and bind mounts', { skip: why('containers') }, async (t) => {
  const folder = join(data, 'run', 'devices');
  await mkdir(folder);
  await host.makeDevices([
    { kind: 'char', path: join(folder, 'null'), major: 1, minor: 3, mode: 0o666 },
    { kind: 'fifo', path: join(folder, 'fifo'), mode: 0o600 },
  ]);
  await writeFile(join(folder, 'null'), 'gone');
  const file = join(folder, 'odd =name\n');
  await writeFile(file, '');
  await symlink('null', join(folder, 'link'));
  const value = new TextEncoder().encode('y');
  await host.setAttributes([
    { path: file, attributes: new Map([['trusted.test', value]]) },
    { path: join(folder, 'link'), attributes: new Map([['trusted.link', value]]) },
  ]);
  const read = (name: string, path: string): string =>
    spawnSync('getfattr', ['-h', '-n', name, '--only-values', path], { encoding: 'utf8' }).stdout;
  t.equal(read('trusted.test', file), 'y');
  t.equal(read('trusted.link', join(folder, 'link')), 'y', 'on the link itself');
  await mkdir(join(folder, 'bound'));
  await host.bindMount(folder, join(folder, 'bound'), true);
  await t.rejects(writeFile(join(folder, 'bound', 'new'), ''), { code: 'EROFS' });
  await host.unmount(join(folder, 'bound'));
});

t.test('cgroup kills all it holds', { skip: why('cgroups') }, async (t) => {
  const cgroup = await host.cgroup('killtest');
  if (cgroup === undefined) throw new Error('no cgroup');
  await cgroup.make({ processes: 8, memoryBytes: 2 ** 26, cpu: 0.5 });
  const child = spawn('sh', ['-c', 'read x; sleep 60 & setsid sleep 60 & wait'], { stdio: 'pipe' });
  await cgroup.join(child.pid ?? 0);
  child.stdin.end('\n');
  while (cgroup.members().length < 3) await new Promise((resolve) => setTimeout(resolve, 5));
  await cgroup.remove();
  t.strictSame(cgroup.members(), []);
});

const run = promisify(execFile);

/** Whether a process in the namespace can open a TCP connection. */
async function reaches(namespace: string, address: string, port: number): Promise<boolean> {
  const nc = [debian.file('busybox'), 'nc', '-w', '1', address, String(port), '-e', 'true'];
  const name = namespace.split('/').at(-1) ?? '';
  return run('ip', ['netns', 'exec', name, 'timeout', '1.5', ...nc]).then(
    () => true,
    () => false,
  );
}

function dials(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, timeout: 1_000 });
    const end = (yes: boolean): void => {
      socket.destroy();
      resolve(yes);
    };
    socket.on('connect', () => end(true));
    socket.on('error', () => end(false));
    socket.on('timeout', () => end(false));
  });
}

const noNetwork = why('networks') || debian.lacks('busybox');
t.test('what a runner can reach, and who reaches it', { skip: noNetwork }, async (t) => {
  await host.openNetwork();
  const [a, b] = [await host.attach('a'), await host.attach('b')];
  const serve = async (network: { namespacePath: string; address: string }) => {
    const name = network.namespacePath.split('/').at(-1) ?? '';
    const httpd = [debian.file('busybox'), 'httpd', '-f', '-p', '8000', '-h', data];
    const child = spawn('ip', ['netns', 'exec', name, ...httpd], { stdio: 'ignore' });
    t.teardown(() => child.kill('SIGKILL'));
    while (!(await dials(network.address, 8000))) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await Promise.all([serve(a), serve(b)]);
  t.pass('two runners listen on one port, and the host reaches both');

  const control = createServer((socket) => socket.on('error', () => undefined).end('x')).listen(
    0,
    '0.0.0.0',
  );
  await new Promise((resolve) => control.once('listening', resolve));
  t.teardown(() => control.close());
  const { port } = control.address() as AddressInfo;
  const own = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((at) => at.family === 'IPv4' && !at.internal);
  t.ok(
    own.some((at) => at.address.startsWith('10.') || at.address.startsWith('172.')),
    'the gateway',
  );
  for (const { address } of own) {
    t.equal(await dials(address, port), true, `negative control: ${address} answers the host`);
    t.equal(await reaches(a.namespacePath, address, port), false, `control port on ${address}`);
  }
  t.equal(await reaches(a.namespacePath, a.address, 8000), true, 'itself');
  t.equal(await reaches(a.namespacePath, b.address, 8000), false, 'another runner');
  // The metadata address and a machine beyond, both played by a namespace behind a link of its own.
  const far = `${names.bridge}far`;
  await run('ip', ['netns', 'add', far]);
  t.teardown(() => run('ip', ['netns', 'del', far]));
  const batch = `link add ${names.linkPrefix}far type veth peer name far netns ${far}
addr add 198.18.7.1/30 dev ${names.linkPrefix}far
link set ${names.linkPrefix}far up
route add 169.254.169.254/32 via 198.18.7.2
`;
  const inside = `link set lo up
addr add 198.18.7.2/30 dev far
addr add 169.254.169.254/32 dev lo
link set far up
`;
  spawnSync('ip', ['-batch', '-'], { input: batch });
  spawnSync('ip', ['-n', far, '-batch', '-'], { input: inside });
  const httpd = [debian.file('busybox'), 'httpd', '-f', '-p', '80', '-h', data];
  const child = spawn('ip', ['netns', 'exec', far, ...httpd], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  for (let n = 0; n < 100 && !(await dials('169.254.169.254', 80)); n += 1) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.equal(await dials('169.254.169.254', 80), true, 'negative control: the host reaches metadata');
  t.equal(await reaches(a.namespacePath, '198.18.7.2', 80), true, 'out, masqueraded');
  t.equal(await reaches(a.namespacePath, '169.254.169.254', 80), false, 'metadata');
  await Promise.all([host.detach('a'), host.detach('b')]);
});

t.test('two agents fit one host and leave each other alone', { skip: noNetwork }, async (t) => {
  const otherData = await mkdtemp(join(tmpdir(), 'runmesh-host-'));
  const other = new LinuxHost({ dataFolder: otherData, clock: systemClock });
  t.teardown(() => rm(otherData, { recursive: true, force: true }));
  const [mine, theirs] = [await host.attach('a'), await other.attach('a')];
  t.not(mine.namespacePath, theirs.namespacePath);
  t.not(mine.address, theirs.address);
  const name = theirs.namespacePath.split('/').at(-1) ?? '';
  const httpd = [debian.file('busybox'), 'httpd', '-f', '-p', '8000', '-h', data];
  const child = spawn('ip', ['netns', 'exec', name, ...httpd], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await host.sweep();
  for (let n = 0; n < 200 && !(await dials(theirs.address, 8000)); n += 1) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.equal(await dials(theirs.address, 8000), true, 'a sweep of one leaves the other’s runner');
  const again = await host.attach('a');
  t.equal(await reaches(again.namespacePath, theirs.address, 8000), false, 'not across agents');
  const kept = JSON.parse(await readFile(join(otherData, 'network.json'), 'utf8')) as unknown;
  t.match(kept, { subnet: /\/22$/ });
  child.kill('SIGKILL');
  await other.sweep();
  await host.detach('a');
});

t.test('nothing is left after many runners', { skip: noNetwork }, async (t) => {
  const left = async (): Promise<string[]> => {
    const links = await readdir('/sys/class/net');
    const spaces = await readdir('/run/netns').catch(() => []);
    return [...links, ...spaces].filter((name) => name.includes(dataFolderTag(data)));
  };
  await host.sweep();
  t.strictSame(await left(), []);
  await host.openNetwork();
  const before = await left();
  for (let round = 0; round < 10; round += 1) {
    const ids = [0, 1, 2, 3, 4].map((n) => `r${round}x${n}`);
    await Promise.all(ids.map((id) => host.attach(id)));
    await Promise.all(ids.map((id) => host.detach(id)));
  }
  t.strictSame(await left(), before, 'the bridge alone');
  await host.attach('forgotten');
  const next = new LinuxHost({ dataFolder: data, clock: systemClock });
  await next.sweep();
  t.strictSame(await left(), [], 'the next life sweeps what the last one forgot');
  const { stdout } = await run('nft', ['list', 'tables']);
  t.notMatch(stdout, names.table);
  t.strictSame(await mountsUnder(data), []);
});
