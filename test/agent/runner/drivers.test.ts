// The three drivers on one conformance suite, and what each alone promises. Containers need root and runc.
import { execFile } from 'node:child_process';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import type { HostAbilities, Host } from '../../../agent/host/host.ts';
import { LinuxHost } from '../../../agent/host/linux-host.ts';
import { mountsUnder } from '../../../agent/host/mount-table.ts';
import { dataFolderTag } from '../../../agent/host/network-plan.ts';
import { ROOT, bytesOfText } from '../../../agent/image/byte-path.ts';
import type { LayerRecord } from '../../../agent/image/layer-store.ts';
import type { Driver, RunnerSource, RunnerSpec } from '../../../agent/runner/driver.ts';
import { MemoryDriver } from '../../../agent/runner/memory-driver.ts';
import { markedProcesses } from '../../../agent/runner/owned-processes.ts';
import { ProcessDriver } from '../../../agent/runner/process-driver.ts';
import { RuncDriver } from '../../../agent/runner/runc-driver.ts';
import { systemClock } from '../../../shared/clock.ts';
import { limits } from '../../../shared/limits.ts';
import { digestOf } from '../../../shared/digest.ts';
import { answer, appSpec, driverConformance } from '../../conformance/driver.ts';
import { tools } from '../../tools/tools.ts';

const debian = await tools(['runtime', 'images']);
process.env['PATH'] = debian.env()['PATH'];
const data = await mkdtemp(join(tmpdir(), 'runmesh-drivers-'));
await chmod(data, 0o711);
const clock = systemClock;
const host = new LinuxHost({ dataFolder: data, clock });
const layer = join(data, 'layer');
const noBusybox = debian.lacks('busybox');
await mkdir(join(layer, 'bin'), { recursive: true });
await mkdir(join(layer, 'etc'));
await writeFile(join(layer, 'note.txt'), 'served');
await writeFile(
  join(layer, 'etc/passwd'),
  'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:\n',
);
await writeFile(join(layer, 'etc/group'), 'root:x:0:\nvideo:x:44:app\n');
if (noBusybox === false) await copyFile(debian.file('busybox'), join(layer, 'bin/busybox'));

await layerRecord(layer);

/** Beside the folder, as the layer store leaves it. */
async function layerRecord(folder: string, more: Partial<LayerRecord> = {}): Promise<void> {
  const none = { sizeBytes: 0, entries: 0, implied: [], opaque: [], lacks: [] };
  const record: LayerRecord = { diffId: digestOf(folder), ...none, ...more };
  await writeFile(join(folder, '..', 'layer.json'), JSON.stringify(record));
}

// Timers of the clock keep no process alive; in the agent its servers do.
const alive = setInterval(() => undefined, 1_000);
t.teardown(async () => {
  await host.sweep();
  await rm(data, { recursive: true, force: true });
  clearInterval(alive);
});

const never = new AbortController().signal;

function image(command: readonly string[], user = ''): RunnerSource {
  const config = { env: [], entrypoint: [], cmd: command, workingDir: '/', user };
  return {
    kind: 'image',
    layerFolders: [layer],
    image: { digest: digestOf('x'), config, layers: [] },
  };
}

const folder = (command: readonly string[]): RunnerSource => ({
  kind: 'process',
  folder: layer,
  command,
});

/** Everything on the machine that carries the tag of our data folder, but for the bridge. */
async function left(kind: string): Promise<string[]> {
  const tag = dataFolderTag(data);
  const links = (await readdir('/sys/class/net')).filter((name) => name !== `rm${tag}`);
  const spaces = await readdir('/run/netns').catch(() => []);
  const found = [...links, ...spaces].filter((name) => name.includes(tag));
  for (const root of ['', ...(await readdir('/sys/fs/cgroup'))]) {
    const base = join('/sys/fs/cgroup', root, `runmesh-${tag}`);
    const below = await readdir(base, { withFileTypes: true }).catch(() => []);
    found.push(...below.filter((at) => at.isDirectory()).map((at) => join(base, at.name)));
  }
  const runners = await readdir(join(data, 'run', kind)).catch(() => []);
  const { stdout } = await promisify(execFile)('ps', ['-eo', 'args']);
  const processes = stdout.split('\n').filter((line) => line.includes(data));
  return [...found, ...(await mountsUnder(data)), ...runners, ...processes];
}

t.test('memory driver', async (t) => {
  const make = () =>
    new MemoryDriver((spec: RunnerSpec) => {
      const name = spec.env['APP'];
      if (name === 'nope') throw new Error('no such app: nope');
      const running = () => driver.runners.get(spec.id);
      setImmediate(() => running()?.print(name === 'crash' ? 'last words\n' : 'hello\noops\n'));
      if (name === 'crash') setImmediate(() => running()?.crash({ kind: 'code', code: 7 }));
      const stubborn = spec.env['STUBBORN'] !== undefined;
      return {
        listener: (_request, response) => void response.end('served'),
        onTerminate: () => (stubborn ? undefined : { kind: 'code', code: 3 }),
      };
    });
  const driver = make();
  driverConformance(t, () => ({
    driver,
    next: () => driver,
    source: folder,
    left: async () => [...driver.runners.keys()],
  }));
});

/** A runner that floods its output: what is kept stays under the limit, and offsets only grow (F32). */
async function flood(
  t: Test,
  driver: Driver,
  source: RunnerSource,
  logFolder: (id: string) => string,
) {
  const spec = appSpec(() => source, 'crash');
  const running = await driver.start(spec, never);
  let end = 0;
  for (let n = 0; n < 8; n += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const slice = await running.readLog(0, 1_000);
    t.ok(slice.end >= end && slice.offset <= slice.end, 'offsets only grow');
    end = slice.end;
  }
  await running.signal('SIGKILL');
  t.strictSame(await running.exited, { kind: 'signal', signal: 'SIGKILL' });
  let kept = 0;
  for (const name of await readdir(logFolder(spec.id))) {
    if (/^log/.test(name)) kept += (await stat(join(logFolder(spec.id), name))).size;
  }
  t.ok(end > limits.logBytes, `it wrote more than is kept: ${end}`);
  t.ok(kept <= limits.logBytes, `kept ${kept} bytes`);
  const last = await running.readLog(end - 4, 4);
  t.equal(last.bytes.byteLength + last.offset <= last.end, true);
  await running.remove();
}

const makeProcess = (on: Host = host) => new ProcessDriver({ host: on, dataFolder: data, clock });
t.test('process driver', { skip: noBusybox }, async (t) => {
  const driver = makeProcess();
  driverConformance(t, () => ({
    driver,
    next: makeProcess,
    source: folder,
    left: () => left('process'),
  }));

  t.test('sees its own folder, port and files, and little else', async (t) => {
    process.env['CANARY'] = 'secret';
    const spec = appSpec(folder, 'crash', {
      source: folder([
        './bin/busybox',
        'sh',
        '-c',
        'env; cat $RUNMESH_DATA/m/w; echo x > note.txt; pwd',
      ]),
      files: [{ source: join(layer, 'note.txt'), target: '/data/m/w', readOnly: true }],
    });
    const running = await driver.start(spec, never);
    t.strictSame(await running.exited, { kind: 'code', code: 0 });
    const log = new TextDecoder().decode((await running.readLog(0, 65_536)).bytes);
    t.notMatch(log, 'CANARY');
    t.match(log, `PORT=${running.address.port}\n`);
    t.match(log, 'served');
    t.match(log, join(data, 'run/process', spec.id, 'work'));
    t.equal(
      await readFile(join(layer, 'note.txt'), 'utf8'),
      'served',
      'the shared folder is untouched',
    );
    await running.remove();
    const outside = { ...spec, files: [{ source: layer, target: '/data/../etc', readOnly: true }] };
    await t.rejects(driver.start(outside, never), { code: 'INPUT_INVALID' });
    t.strictSame(await left('process'), []);
  });

  t.test('a flood of output is capped', async (t) => {
    const source = folder(['./bin/busybox', 'yes', 'x'.repeat(200)]);
    await flood(t, driver, source, (id) => join(data, 'run/process', id, 'log'));
    t.strictSame(await left('process'), []);
  });

  t.test('without cgroups the mark finds children that got away', async (t) => {
    class Bare extends LinuxHost {
      override cgroup = async (): Promise<undefined> => undefined;
    }
    const bare = makeProcess(new Bare({ dataFolder: data, clock }));
    const spec = appSpec(folder, 'fork');
    const running = await bare.start(spec, never);
    await answer(running, '/note.txt');
    const mark = join(data, 'run/process', spec.id);
    t.ok((await markedProcesses(mark)).length >= 4, 'the family');
    await running.remove();
    t.strictSame(await markedProcesses(mark), []);
    t.strictSame(await left('process'), []);
  });

  const abilities: HostAbilities = await host.abilities();
  const noCgroups = abilities.cgroups.yes ? false : abilities.cgroups.no;
  t.test('out of memory is told as such', { skip: noCgroups }, async (t) => {
    const eat = 'a=x; while :; do a=$a$a$a; done';
    const source = folder(['./bin/busybox', 'sh', '-c', eat]);
    const running = await driver.start(
      appSpec(folder, 'crash', { source, memoryBytes: 2 ** 25 }),
      never,
    );
    t.strictSame(await running.exited, { kind: 'oom' });
    await running.remove();
  });
});

const makeRunc = () => new RuncDriver({ host, dataFolder: data, clock });
const noRunc = noBusybox || ((await makeRunc().unavailable()) ?? false);
t.test('runc driver', { skip: noRunc }, async (t) => {
  const driver = makeRunc();
  driverConformance(t, () => ({ driver, next: makeRunc, source: image, left: () => left('runc') }));

  const outputOf = async (script: string, more: Partial<RunnerSpec> = {}, user = '') => {
    const source = image(['/bin/busybox', 'sh', '-c', script], user);
    const running = await driver.start(appSpec(image, 'crash', { source, ...more }), never);
    const exit = await running.exited;
    const log = new TextDecoder().decode((await running.readLog(0, 65_536)).bytes);
    await running.remove();
    return { exit, log };
  };

  t.test('runs as the user of the image, with /data, /tmp and files of its own', async (t) => {
    const files = [{ source: join(layer, 'note.txt'), target: '/data/m/w', readOnly: true }];
    const script = `b=/bin/busybox; $b id; echo x > /data/mine && echo data; echo x > /tmp/y && echo tmp
$b cat /data/m/w; echo x > /data/m/w; $b cat /etc/hostname /etc/resolv.conf; $b pwd; echo $HOME $PORT`;
    const { exit, log } = await outputOf(script, { files }, 'app');
    t.strictSame(exit, { kind: 'code', code: 0 }, log);
    t.match(log, /uid=1000\(app\) gid=1000.* groups=.*44\(video\)/);
    for (const part of ['data\n', 'tmp\n', 'served', 'Read-only file system', 'nameserver'])
      t.match(log, part);
    t.match(log, '/home/app 8000');
    await t.rejects(outputOf('true', {}, 'nobody-knows'), { code: 'IMAGE_INVALID' });
  });

  t.test(
    'a folder that a layer only implies keeps the attributes of the layer below',
    async (t) => {
      const [top, low] = ['top', 'low'].map((name) => join(data, name, 'fs'));
      if (top === undefined || low === undefined) return;
      for (const folder of [top, low]) await mkdir(join(folder, 'tmp'), { recursive: true });
      await chmod(join(low, 'tmp'), 0o1777);
      await layerRecord(low);
      await layerRecord(top, { implied: [ROOT, bytesOfText('tmp')] });
      const script = 'echo x > /tmp/y; /bin/busybox stat -c %a /tmp';
      const source = image(['/bin/busybox', 'sh', '-c', script], 'app');
      if (source.kind !== 'image') return;
      const layers = { ...source, layerFolders: [top, layer, low] };
      t.match(await outputOf('', { source: layers }), { log: '1777\n' });

      await layerRecord(top, { lacks: ['owners (not root)'] });
      await t.rejects(outputOf('', { source: layers }), { message: /lacks owners/ });
      t.strictSame(await left('runc'), []);
    },
  );

  t.test('what it may not do', async (t) => {
    const script = `b=/bin/busybox; try() { "$@" 2>/dev/null >&2 && echo "DONE $*"; }
try $b mount -t tmpfs x /mnt; try $b unshare -U $b true; try $b unshare -n $b true
try $b mknod /tmp/d c 1 1; try $b ping -c 1 -W 1 127.0.0.1; try $b hostname other
try $b chroot /proc/1/root $b false; try $b dmesg; try $b sh -c 'echo 1 > /proc/sys/kernel/core_uses_pid'
try $b sh -c 'echo b > /proc/sysrq-trigger'; try $b sh -c 'echo 1 > /sys/kernel/mm/ksm/run'
try $b ip link set lo down; try $b cat /dev/mem
$b grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; $b date -s 2001-01-01 2>&1; echo year $($b date +%Y)`;
    const { log } = await outputOf(script);
    t.notMatch(log, 'DONE', log);
    t.match(log, /NoNewPrivs:\s+1/);
    t.match(log, /Seccomp:\s+2/);
    t.notMatch(log, 'year 2001');
  });

  t.test('out of memory is told as such; a fork bomb stays inside', async (t) => {
    const { exit } = await outputOf('a=x; while :; do a=$a$a$a; done', { memoryBytes: 2 ** 25 });
    t.strictSame(exit, { kind: 'oom' });
  });

  t.test('a flood of output is capped', async (t) => {
    const source = image(['/bin/busybox', 'yes', 'x'.repeat(200)]);
    await flood(t, driver, source, (id) => join(data, 'run/runc', id));
    t.strictSame(await left('runc'), []);
  });

  t.test('a program that is missing is told in the words of runc', async (t) => {
    const spec = appSpec(image, 'crash', { source: image(['/bin/nope']) });
    await t.rejects(driver.start(spec, never), {
      code: 'DRIVER_FAILED',
      message: /^create: .*exec: "\/bin\/nope": stat \/bin\/nope: no such file or directory/,
      detail: { stage: 'create' },
    });
    t.strictSame(await left('runc'), []);
  });
});
