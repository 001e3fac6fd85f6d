// The pure half of running: bundle, seccomp, CDI, users, exit values, logs, identity.
import {
  appendFile,
  mkdir,
  mkdtemp,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { bundleConfig, CAPABILITIES, type BundleInput } from '../../../agent/runner/bundle.ts';
import { mergeCdi, parseCdi, plainGpuEdits, readCdi } from '../../../agent/runner/cdi.ts';
import { ConmonLog, decodeLines } from '../../../agent/runner/conmon-log.ts';
import { exitOf, exitOfStatus } from '../../../agent/runner/exit-value.ts';
import { deviceNumbers } from '../../../agent/runner/gpu-devices.ts';
import { SegmentLog } from '../../../agent/runner/log-file.ts';
import { identify, isSameProcess, startTicksOf } from '../../../agent/runner/process-identity.ts';
import { runcWords } from '../../../agent/runner/runc.ts';
import { Stages } from '../../../agent/runner/stages.ts';
import { containerUser, findUser, resolveInside } from '../../../agent/runner/user.ts';
import { systemChance } from '../../../shared/chance.ts';
import { digestOf } from '../../../shared/digest.ts';
import { newRunnerId } from '../../../shared/ids.ts';

const folder = await mkdtemp(join(tmpdir(), 'runmesh-bundle-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));
const fixtures = join(import.meta.dirname, '../../fixtures/cdi');
const gpu = { uuid: 'GPU-11111111-2222-3333-4444-555555555555', minor: 0, index: 0 };
const second = { uuid: 'GPU-22222222-2222-3333-4444-555555555555', minor: 7, index: 1 };

function input(more: Partial<BundleInput> = {}): BundleInput {
  const config = {
    env: [
      'PATH=/opt/bin',
      'A=image',
      'NVIDIA_VISIBLE_DEVICES=all',
      'NVIDIA_DRIVER_CAPABILITIES=all',
    ],
    entrypoint: ['/serve'],
    cmd: ['--fast'],
    workingDir: '/app',
    user: '',
  };
  const image = { digest: digestOf('x'), config, layers: [] };
  const source = { kind: 'image', image, layerFolders: [] } as const;
  return {
    spec: {
      ...{ id: newRunnerId(1, systemChance), app: 'acme/x', source, port: 8000, gpus: [] },
      env: { A: 'app', B: '2' },
      files: [{ source: '/cas/w', target: '/data/w', readOnly: true }],
    },
    source,
    user: { uid: 0, gid: 0, additionalGids: [] },
    ...{ rootfs: '/r', dataFolder: '/d', namespacePath: '/run/netns/n', cgroupsPath: '/c/r' },
    etc: { resolvConf: '/e/resolv.conf', hosts: '/e/hosts', hostname: '/e/hostname' },
    ...{ hasSwap: false, openFiles: 1024, architecture: 'x64' },
    ...more,
  };
}

t.test('bundle: command, environment, mounts', async (t) => {
  const config = bundleConfig(input());
  t.strictSame(config.process.args, ['/serve', '--fast']);
  t.equal(config.process.cwd, '/app');
  t.equal(config.process.noNewPrivileges, true);
  for (const line of [
    'PATH=/opt/bin',
    'A=app',
    'B=2',
    'PORT=8000',
    'NVIDIA_VISIBLE_DEVICES=void',
  ]) {
    t.ok(config.process.env.includes(line), line);
  }
  t.notOk(config.process.env.includes('A=image'), 'the app wins over the image');
  const targets = config.mounts.map((mount) => mount.destination);
  t.ok(targets.indexOf('/data') < targets.indexOf('/data/w'), 'files come on top of /data');
  t.match(config.mounts.find((mount) => mount.destination === '/data/w')?.options, ['rbind']);
  t.ok(config.mounts.find((mount) => mount.destination === '/data/w')?.options.includes('ro'));
  const named = input();
  const command = bundleConfig({ ...named, source: { ...named.source, command: ['/other'] } });
  t.strictSame(command.process.args, ['/other'], 'a command of the app replaces both');
  const empty = { ...named.source.image.config, entrypoint: [], cmd: [] };
  const nothing = { ...named.source, image: { ...named.source.image, config: empty } };
  t.throws(() => bundleConfig({ ...named, source: nothing }), { code: 'IMAGE_INVALID' });
});

t.test('bundle: what a runner may do', async (t) => {
  const root = bundleConfig(input());
  t.strictSame(root.process.capabilities.effective, CAPABILITIES);
  for (const name of ['CAP_NET_RAW', 'CAP_SYS_ADMIN', 'CAP_MKNOD'])
    t.notOk(CAPABILITIES.includes(name));
  const user = bundleConfig(input({ user: { uid: 1000, gid: 1, additionalGids: [44] } }));
  t.strictSame(user.process.capabilities.effective, []);
  t.strictSame(
    root.linux.resources.devices,
    [{ allow: false, access: 'rwm' }],
    'no device but runc’s own',
  );
  t.strictSame(root.linux.devices, []);
  t.notOk('hooks' in root);
  const denied = root.linux.seccomp.syscalls.flatMap((rule) => rule.names);
  for (const name of ['keyctl', 'bpf', 'mount', 'unshare', 'kexec_load', 'userfaultfd', 'clone']) {
    t.ok(denied.includes(name), name);
  }
  const limited = input();
  const spec = { ...limited.spec, memoryBytes: 1000, cpu: 1.5 };
  const { resources } = bundleConfig({ ...limited, spec }).linux;
  t.match(resources, { memory: { limit: 1000 }, cpu: { quota: 150_000, period: 100_000 } });
  t.match(bundleConfig({ ...limited, spec, hasSwap: true }).linux.resources, {
    memory: { swap: 1000 },
  });
});

t.test('CDI: known-safe hooks alone, devices by UUID or index', async (t) => {
  const specs = await readCdi([fixtures, '/no/such/folder']);
  t.equal(specs.length, 1, 'other kinds are not ours');
  const edits = mergeCdi(specs, [gpu, second]);
  t.strictSame(
    edits?.devices.map(({ path, hostPath, permissions }) => [path, hostPath, permissions]),
    [
      ['/dev/nvidiactl', '/dev/nvidiactl', 'rwm'],
      ['/dev/nvidia-uvm', '/dev/nvidia-uvm', 'rwm'],
      ['/dev/nvidia0', '/dev/nvidia0', 'rwm'],
      ['/dev/nvidia1', '/dev/nvidia7', 'rw'],
    ],
  );
  const kept = edits?.hooks.map(({ args }) =>
    args.find((word) => /^(create|update|enable)-/.test(word)),
  );
  t.strictSame(kept, ['create-symlinks', 'update-ldcache']);
  t.equal(
    mergeCdi(specs, [{ ...gpu, uuid: 'GPU-x', index: 5 }]),
    undefined,
    'one that it does not know',
  );
  t.throws(() => parseCdi('devices: 3', 'x.yaml'), { code: 'CONFIG_INVALID', message: /x\.yaml/ });
  t.throws(() => parseCdi('{', 'x.json'), { code: 'CONFIG_INVALID' });
  if (edits === undefined) return;
  const devices = [{ path: '/dev/nvidia0', major: 195, minor: 0, permissions: 'rw' }];
  const gpus = { ...edits, devices, uuids: [gpu.uuid] };
  const config = bundleConfig(input({ gpus }));
  t.ok(config.process.env.includes(`NVIDIA_VISIBLE_DEVICES=${gpu.uuid}`), 'ours, not the image’s');
  for (const hook of config.hooks?.['createContainer'] ?? []) {
    t.strictSame(
      hook.env.map((line) => line.split('=')[0]),
      ['PATH'],
      'no environment of the image',
    );
  }
  t.match(config.linux.resources.devices[1], {
    allow: true,
    type: 'c',
    major: 195,
    minor: 0,
    access: 'rw',
  });
  t.match(plainGpuEdits([second]).devices[0], { path: '/dev/nvidia7' });
  t.strictSame(deviceNumbers(0x10_c307), { major: 195, minor: 0x107 });
});

t.test('users of the image', async (t) => {
  const passwd = [
    ['app', 'x', '1000', '1001', '', '/home/app'],
    ['1000x', 'x', '7', '7'],
  ];
  const group = [
    ['video', 'x', '44', 'app,other'],
    ['app', 'x', '1001', ''],
  ];
  const find = (user: string) => findUser(user, passwd, group);
  t.match(find(''), { uid: 0, gid: 0, additionalGids: [] });
  t.match(find('app'), { uid: 1000, gid: 1001, additionalGids: [44], home: '/home/app' });
  t.match(
    find('1000'),
    { uid: 1000, gid: 1001, additionalGids: [] },
    'a number takes its group along',
  );
  t.match(find('1234:5678'), { uid: 1234, gid: 5678 });
  t.match(find('app:video'), { uid: 1000, gid: 44, additionalGids: [] });
  for (const user of ['ghost', 'app:ghost', '99999999999'])
    t.throws(() => find(user), { code: 'IMAGE_INVALID' });

  const rootfs = join(folder, 'rootfs');
  await mkdir(join(rootfs, 'real'), { recursive: true });
  await writeFile(join(folder, 'passwd'), 'evil:x:0:0::/:\n');
  await writeFile(join(rootfs, 'real/passwd'), 'good:x:5:6::/:\n');
  await symlink('/real', join(rootfs, 'etc'));
  t.match(await containerUser(rootfs, 'good'), { uid: 5, gid: 6 }, 'an absolute link means inside');
  await rm(join(rootfs, 'etc'));
  await symlink('../../../../../../..' + folder, join(rootfs, 'etc'));
  await t.rejects(containerUser(rootfs, 'evil'), { code: 'IMAGE_INVALID' }, 'never outside');
  await symlink('loop', join(rootfs, 'loop'));
  await t.rejects(resolveInside(rootfs, '/loop/x'), { code: 'IMAGE_INVALID' });
});

t.test('exit values and the words of runc', async (t) => {
  t.strictSame(exitOfStatus(0, false), { kind: 'code', code: 0 });
  t.strictSame(exitOfStatus(139, false), { kind: 'signal', signal: 'SIGSEGV' });
  t.strictSame(exitOfStatus(137, true), { kind: 'oom' });
  t.strictSame(exitOfStatus(200, true), { kind: 'code', code: 200 });
  t.strictSame(exitOf(null, null, false), { kind: 'unknown' });
  t.equal(
    runcWords('time="x" level=error msg="runc create failed: \\"a\\": no"\n'),
    'runc create failed: "a": no',
  );
  t.equal(runcWords('plain\nlast'), 'last');
});

t.test('identity: a pid that was used again is another process (A3)', async (t) => {
  const own = await identify(process.pid);
  if (own === undefined) throw new Error('we are not here');
  t.equal(await isSameProcess(own), true);
  t.equal(await isSameProcess({ ...own, startTicks: own.startTicks - 1 }), false);
  t.equal(await isSameProcess({ ...own, bootId: 'another boot' }), false);
  const fields = Array.from({ length: 20 }, (_, index) => String(index)).join(' ');
  t.equal(startTicksOf(`7 (a) b) (c) ${fields} 0`), 19, 'brackets in a name');
});

t.test('stages are undone in reverse, and the refusal names the stage', async (t) => {
  const done: string[] = [];
  const stages = new Stages(new AbortController().signal);
  const undo = (name: string) => async () => void done.push(name);
  await stages.run('one', async () => undefined, undo('one'));
  await stages.run('two', async () => undefined, undo('two'));
  const fails = stages.run('three', () => Promise.reject(new Error('no')), undo('three'));
  await t.rejects(fails, {
    code: 'DRIVER_FAILED',
    message: 'three: no',
    detail: { stage: 'three' },
  });
  t.strictSame(done, ['three', 'two', 'one']);
  const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
  await t.rejects(
    stages.run('four', () => Promise.reject(full)),
    { code: 'DISK_FULL' },
  );
});

t.test('segments: offsets only grow, the oldest go', async (t) => {
  const at = await mkdtemp(join(folder, 'log-'));
  const log = await SegmentLog.open(at, 40);
  for (let n = 0; n < 10; n += 1) await log.append(Buffer.from(`line ${n}\n`));
  const all = await log.read(0, 1000);
  t.strictSame([all.end, all.offset + all.bytes.byteLength], [70, 70]);
  t.equal(all.offset % 10, 0);
  t.ok(all.offset > 0 && all.bytes.byteLength <= 40, 'dropped from the front');
  t.match(Buffer.from(all.bytes).toString(), /line 9\n$/);
  const middle = await log.read(63, 4);
  t.equal(Buffer.from(middle.bytes).toString(), 'line');
  await log.close();
  const again = await SegmentLog.open(at, 40);
  await again.append(Buffer.from('more\n'));
  t.equal(
    Buffer.from((await again.read(70, 10)).bytes).toString(),
    'more\n',
    'goes on after a restart',
  );
  await again.close();
});

t.test('conmon’s log: prefixes go, partial lines join, a new file counts on', async (t) => {
  const line = (kind: 'F' | 'P', text: string): string =>
    `2026-01-01T00:00:00.0+00:00 stdout ${kind} ${text}\n`;
  const text = line('F', 'a b') + line('P', 'half ') + line('F', 'whole') + line('F', '');
  const decoded = decodeLines(Buffer.from(`${text}2026`));
  t.equal(Buffer.from(decoded.output).toString(), 'a b\nhalf whole\n\n');
  t.equal(decoded.rawBytes, text.length);
  const path = join(folder, 'conmon.log');
  const log = new ConmonLog(path);
  t.strictSame(await log.read(0, 10), { offset: 0, bytes: Buffer.alloc(0), end: 0 }, 'no file yet');
  await writeFile(path, text);
  const read = async (offset: number, max: number) => {
    const slice = await log.read(offset, max);
    return [slice.offset, Buffer.from(slice.bytes).toString(), slice.end];
  };
  t.strictSame(await read(0, 100), [0, 'a b\nhalf whole\n\n', 16]);
  t.strictSame(await read(6, 4), [6, 'lf w', 16]);
  await appendFile(path, line('F', 'late'));
  await writeFile(`${path}.tmp`, line('F', 'fresh'));
  await rename(`${path}.tmp`, path);
  t.strictSame(
    await read(14, 100),
    [14, '\n\nlate\nfresh\n', 27],
    'the file before stays readable',
  );
  const many = Array.from({ length: 30_000 }, (_, n) => line('F', `number ${n}`)).join('');
  await writeFile(`${path}.tmp`, many);
  await rename(`${path}.tmp`, path);
  const slice = await log.read(0, 10);
  t.equal(slice.offset, 21, 'two files are kept');
  const all = await log.read(27, 1e6);
  const wanted = Array.from({ length: 30_000 }, (_, n) => `number ${n}\n`).join('');
  t.equal(Buffer.from(all.bytes).toString() === wanted, true);
  const deep = wanted.indexOf('number 25000\n');
  t.match(await read(27 + deep, 13), [27 + deep, 'number 25000\n']);
  await log.close();
  t.ok(await readFile(path), 'reading never changes the file');
});
