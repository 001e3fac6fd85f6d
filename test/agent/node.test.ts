// The node's own eyes: GPU probe (real tool faked on PATH), host facts, and the hand-out of GPUs.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { Facts } from '../../agent/node/facts.ts';
import { adopt, release, take, type HandOut } from '../../agent/node/gpu-hand-out.ts';
import type { Gpu, GpuReading } from '../../agent/node/gpu-probe.ts';
import { MemoryGpuProbe } from '../../agent/node/memory-gpu-probe.ts';
import { NvidiaGpuProbe } from '../../agent/node/nvidia-gpu-probe.ts';
import { systemClock } from '../../shared/clock.ts';
import type { RunnerId } from '../../shared/ids.ts';
import { gpuProbeConformance } from '../conformance/gpu-probe.ts';

const fixtures = join(import.meta.dirname, '../fixtures/nvidia-smi');
const fixture = (name: string): string => join(fixtures, name);
const going = new AbortController().signal;

/** A folder for PATH in which `nvidia-smi` does what `script` says. */
function machine(test: Pick<typeof t, 'teardown'>): {
  path: string;
  tool: (script: string) => void;
  looks: () => number;
} {
  const path = mkdtempSync(join(tmpdir(), 'runmesh-gpu-'));
  test.teardown(() => rmSync(path, { recursive: true, force: true }));
  const looks = join(path, 'looks');
  writeFileSync(looks, '');
  const tool = (script: string): void => {
    const count = `echo look >> ${looks}\n`;
    const arguments_ = '[ "$*" = "-q -x" ] || exit 2\n';
    rmSync(join(path, 'nvidia-smi'), { force: true });
    writeFileSync(join(path, 'nvidia-smi'), `#!/bin/sh\n${count}${arguments_}${script}\n`);
    chmodSync(join(path, 'nvidia-smi'), 0o755);
  };
  return { path, tool, looks: () => readFileSync(looks, 'utf8').split('look').length - 1 };
}

const prints = (name: string): string => `/bin/cat ${fixture(name)}`;
const noDriverFile = '/nonexistent/driver';

await gpuProbeConformance(t, 'nvidia-smi', async () => {
  const { path, tool, looks } = machine(t);
  return {
    probe: new NvidiaGpuProbe({
      clock: systemClock,
      timeoutMs: 8_000,
      path,
      driverFile: noDriverFile,
    }),
    looks,
    machine(has) {
      if (has === 'nothing') return rmSync(join(path, 'nvidia-smi'), { force: true });
      if (has === 'h100x8') return tool(prints('h100x8.xml'));
      tool(has === 'broken driver' ? `${prints('no-driver.txt')}; exit 9` : 'exec /bin/sleep 60');
    },
  };
});

await gpuProbeConformance(t, 'memory', async () => {
  const probe = new MemoryGpuProbe(systemClock);
  const gpus = Array.from({ length: 8 }, (_, index) => h100(index));
  return {
    probe,
    looks: () => probe.looks,
    machine(has) {
      if (has === 'nothing') probe.show({ kind: 'none' });
      else if (has === 'h100x8') probe.show({ kind: 'gpus', gpus, unreadable: [] });
      else if (has === 'broken driver')
        probe.show({ kind: 'no_answer', reason: "couldn't communicate" });
      else probe.show(new Promise(() => undefined));
    },
  };
});

function h100(index: number, more: Partial<Gpu> = {}): Gpu {
  const uuid = `GPU-${String(index).padStart(8, '0')}`;
  const name = 'NVIDIA H100 80GB HBM3';
  const memoryBytes = 81_559 * 2 ** 20;
  return {
    uuid,
    index,
    minor: index,
    name,
    memoryBytes,
    migMode: false,
    migDevices: [],
    problems: [],
    ...more,
  };
}

/** What the real probe makes of a tool. */
async function readingOf(
  test: Pick<typeof t, 'teardown'>,
  script: string,
  options: { timeoutMs?: number; driverFile?: string } = {},
): Promise<GpuReading> {
  const { path, tool } = machine(test);
  if (script !== '') tool(script);
  const probe = new NvidiaGpuProbe({
    clock: systemClock,
    path,
    driverFile: noDriverFile,
    timeoutMs: 20_000,
    ...options,
  });
  return probe.read(going);
}

t.test('nvidia-smi: the shapes that drivers give', async (t) => {
  const seen = async (name: string): Promise<Gpu[]> => {
    const reading = await readingOf(t, prints(name));
    if (reading.kind !== 'gpus') throw new Error(JSON.stringify(reading));
    return reading.gpus;
  };
  const [first, , third] = await seen('h100x8.xml');
  t.match(first, {
    index: 0,
    minor: 0,
    name: 'NVIDIA H100 80GB HBM3',
    architecture: 'Hopper',
    pciBusId: '00000000:1B:00.0',
    memoryBytes: 81_559 * 2 ** 20,
    memoryUsedBytes: 65_221 * 2 ** 20,
    utilizationPercent: 97,
    temperatureCelsius: 61,
    powerWatts: 612.3,
    migMode: false,
    migDevices: [],
    eccCorrected: 0,
    eccUncorrected: 0,
    problems: [],
  });
  t.equal(third?.memoryUsedBytes, 2 ** 20);

  const [consumer, ...others] = await seen('rtx4090.xml');
  t.equal(others.length, 0, 'a single GPU is not an array after parsing');
  t.match(consumer, {
    name: 'NVIDIA GeForce RTX 4090',
    minor: 0,
    migMode: false,
    utilizationPercent: 3,
  });
  t.notOk('eccCorrected' in (consumer ?? {}), 'P3: no ECC is not zero errors');

  const mig = await seen('a100-mig.xml');
  t.same(
    mig.map(({ migMode }) => migMode),
    [true, true, true, false],
  );
  t.same(
    mig.map(({ minor }) => minor),
    [1, 0, 3, 2],
    'device numbers do not follow the index',
  );
  t.same(
    mig.map(({ migDevices }) => migDevices.map(({ gpuInstanceId }) => gpuInstanceId)),
    [[3, 4], [2], [], []],
  );
  t.equal(mig[0]?.migDevices[1]?.memoryBytes, 19_968 * 2 ** 20);
  t.notOk('utilizationPercent' in (mig[0] ?? {}));

  const [old] = await seen('k80.xml');
  t.match(old, {
    name: 'Tesla K80',
    memoryBytes: 11_441 * 2 ** 20,
    powerWatts: 31.25,
    migMode: false,
    eccUncorrected: 0,
  });
  const [reset, lost] = await seen('h100-sick.xml');
  t.same(reset?.problems, ['the driver asks for: Reset']);
  t.same(lost?.problems, ['the GPU is lost']);
  t.notOk('memoryBytes' in (lost ?? {}));
  t.same(await seen('no-devices.xml'), []);
});

t.test('nvidia-smi: the ways it fails', async (t) => {
  const reason = async (
    script: string,
    options: { timeoutMs?: number; driverFile?: string } = {},
  ): Promise<string> => {
    const reading = await readingOf(t, script, options);
    return reading.kind === 'no_answer' ? reading.reason : JSON.stringify(reading);
  };
  t.match(await reason(`${prints('no-driver.txt')}; exit 9`), /NVIDIA-SMI has failed because/);
  t.match(await reason(`${prints('gpu-lost.txt')}; exit 15`), /GPU is lost/);
  t.match(await reason(`${prints('mismatch.txt')} >&2; exit 18`), /version mismatch/);
  t.match(await reason('exit 12'), /NVML library cannot be found/);
  t.match(await reason('exit 1'), /ended with code 1/);
  t.match(await reason('kill -9 $$'), /killed/i);
  t.match(await reason('echo "<html>hello"'), /printed no XML/);
  t.match(await reason('echo "<html></html>"'), /no nvidia_smi_log/);
  t.match(await reason('echo'), /no nvidia_smi_log/);
  t.match(await reason('/usr/bin/head -c 2000 ' + fixture('h100x8.xml')), /no XML/, 'cut short');
  t.match(
    await reason('/usr/bin/head -c 30000000 /dev/zero | /usr/bin/tr "\\0" x'),
    /over \d+ bytes/,
  );
  t.match(
    await reason(`echo '<nvidia_smi_log><attached_gpus>2</attached_gpus></nvidia_smi_log>'`),
    /describes none/,
  );
  t.match(
    await reason('', { driverFile: fixture('README.md') }),
    /driver is loaded, but nvidia-smi is not on PATH/,
  );
  t.same(await readingOf(t, `${prints('no-devices.txt')}; exit 6`), {
    kind: 'gpus',
    gpus: [],
    unreadable: [],
  });
  const warned = await readingOf(
    t,
    `echo "WARNING: infoROM is corrupted"; ${prints('rtx4090.xml')}; echo "WARNING" >&2`,
  );
  t.match(
    warned,
    { kind: 'gpus', driverVersion: '590.44.01', cudaVersion: '13.1' },
    'warnings beside the log are fine',
  );
  const nameless = await readingOf(
    t,
    `echo '<nvidia_smi_log><gpu id="00:1"><uuid>N/A</uuid></gpu></nvidia_smi_log>'`,
  );
  t.match(nameless, { kind: 'gpus', gpus: [], unreadable: ['00:1'] });
  const large = `echo '<nvidia_smi_log>'; i=0; while [ $i -lt 60000 ]; do echo "<x>a supported clock of a GPU</x>"; i=$((i+1)); done; echo '<gpu id="1"><uuid>GPU-1</uuid></gpu></nvidia_smi_log>'`;
  t.match(
    await readingOf(t, large),
    { kind: 'gpus', gpus: [{ uuid: 'GPU-1' }] },
    'above Node’s own bound of 1 MiB',
  );
});

t.test('P1: a hung nvidia-smi costs the deadline and is killed with all it started', async (t) => {
  const { path, tool } = machine(t);
  const pidFile = join(path, 'pid');
  tool(`/bin/sleep 60 & echo $! > ${pidFile}; wait`);
  const probe = new NvidiaGpuProbe({ clock: systemClock, path, timeoutMs: 3_000 });
  const startedMs = systemClock.elapsed();
  const reading = await probe.read(going);
  t.match(reading, { kind: 'no_answer', reason: /no answer within 3000 ms/ });
  t.ok(systemClock.elapsed() - startedMs < 6_000);
  const pid = readFileSync(pidFile, 'utf8').trim();
  for (let tries = 0; tries < 50 && alive(pid); tries += 1)
    await new Promise((go) => setTimeout(go, 20));
  t.notOk(alive(pid), 'its child is gone too');
  tool(prints('rtx4090.xml'));
  t.equal((await probe.read(going)).kind, 'gpus', 'and the next look works');
});

/** A process that SIGKILL does not end, like one in a hung driver: frozen by the first version of cgroups. */
const freezer = '/sys/fs/cgroup/freezer';
const noFreezer =
  process.getuid?.() !== 0
    ? 'freezing a process needs root'
    : !existsSync(join(freezer, 'cgroup.procs')) &&
      'this machine has no freezer cgroup of version 1';

t.test(
  'a probe that cannot be killed is not followed by another',
  { skip: noFreezer },
  async (t) => {
    const { path, tool, looks } = machine(t);
    const group = join(freezer, `runmesh-test-${process.pid}`);
    mkdirSync(group);
    const thaw = async (): Promise<void> => {
      writeFileSync(join(group, 'freezer.state'), 'THAWED');
      for (
        let tries = 0;
        tries < 100 && readFileSync(join(group, 'cgroup.procs'), 'utf8') !== '';
        tries += 1
      )
        await new Promise((go) => setTimeout(go, 20));
    };
    t.teardown(async () => {
      await thaw();
      rmdirSync(group);
    });
    tool(`echo $$ > ${group}/cgroup.procs; echo FROZEN > ${group}/freezer.state; /bin/sleep 60`);
    const probe = new NvidiaGpuProbe({ clock: systemClock, path, timeoutMs: 3_000 });
    t.match(await probe.read(going), { kind: 'no_answer', reason: /no answer within/ });
    const before = looks();
    t.match(await probe.read(going), { kind: 'no_answer', reason: /stuck in the driver/ });
    t.equal(looks(), before, 'nothing was started');
    await thaw();
    tool(prints('rtx4090.xml'));
    t.equal((await probe.read(going)).kind, 'gpus', 'it goes on once the stuck one has gone');
  },
);

function alive(pid: string): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
}

t.test('facts of this machine', async (t) => {
  const facts = new Facts({ clock: systemClock, dataDir: tmpdir(), timeoutMs: 20_000 });
  const first = await facts.read(going);
  t.ok(first.hostname);
  t.match(first.os, /\w/);
  t.match(first.kernel, /^\d+\./);
  t.ok((first.cpuCores ?? 0) >= 1);
  t.ok(
    (first.memoryTotalBytes ?? 0) > 2 ** 20 &&
      (first.memoryFreeBytes ?? 0) <= (first.memoryTotalBytes ?? 0),
  );
  t.ok((first.diskTotalBytes ?? 0) >= (first.diskFreeBytes ?? 1));
  t.match(first.bootId, /^[0-9a-f-]{36}$/);
  t.same(first.missing, []);
  t.equal(facts.read(going), facts.read(going), 'kept while fresh');
});

t.test('N1: facts that cannot be learnt are absent and said', async (t) => {
  const late = new Facts({ clock: systemClock, dataDir: '/nonexistent', timeoutMs: 1 });
  const facts = await late.read(going);
  t.ok(facts.hostname && facts.bootId);
  t.notOk('os' in facts);
  t.notOk('diskTotalBytes' in facts);
  t.match(facts.missing, [/no answer within 1 ms/]);
  const stopping = new Facts({ clock: systemClock, dataDir: tmpdir() });
  t.match((await stopping.read(AbortSignal.abort())).missing, [/stopping/]);
});

const runner = (n: number): RunnerId => `r${n}` as RunnerId;
const none: HandOut = new Map();

t.test('GPUs are handed out whole, or refused in words', async (t) => {
  const eight = Array.from({ length: 8 }, (_, index) => h100(index));
  const reason = (gpus: readonly Gpu[], wish: Parameters<typeof take>[2], state = none): string => {
    const result = take(state, gpus, wish, runner(9));
    return result.kind === 'refused' ? result.reason : 'taken';
  };
  const busy: HandOut = new Map(eight.slice(0, 6).map(({ uuid }) => [uuid, runner(1)]));
  t.equal(reason(eight, { count: 4 }, busy), '2 of 8 GPUs free, 4 wanted');
  t.equal(
    reason(eight, { count: 1, gpu: 'H200' }),
    'no GPU named H200; there are: NVIDIA H100 80GB HBM3',
  );
  t.equal(reason(eight, { count: 1, gpu: 'h100' }), 'taken');
  t.equal(
    reason(eight, { count: 1, vramBytes: 90 * 2 ** 30 }),
    'no GPU has 90 GiB of memory; the largest has 79.6 GiB',
  );
  t.equal(reason(eight, { count: 9 }), 'a runner gets 0 to 8 GPUs, not 9');
  t.equal(reason(eight.slice(0, 2), { count: 4 }), '2 usable GPUs, 4 wanted');
  t.equal(reason([], { count: 1 }), 'the node has no GPUs');
  t.equal(reason([], { count: 0 }), 'taken');
  t.match(
    reason([h100(0, { migMode: true }), h100(1)], { count: 2 }),
    /1 usable GPUs, 2 wanted: GPU 0 is cut into MIG/,
  );
  t.match(
    reason([h100(0, { problems: ['the GPU is lost'] })], { count: 1 }),
    /GPU 0 is not healthy: the GPU is lost/,
  );
  const { minor: _, ...withoutMinor } = h100(0);
  t.match(reason([withoutMinor], { count: 1 }), /has no device number/);

  const holed: HandOut = new Map([
    ['GPU-00000001', runner(1)],
    ['GPU-00000006', runner(1)],
  ]);
  const pair = take(holed, eight, { count: 1 }, runner(2));
  t.same(
    pair.kind === 'taken' && pair.gpus,
    [{ uuid: 'GPU-00000000', minor: 0, index: 0 }],
    'the smallest hole first',
  );
  const four = take(holed, eight, { count: 4 }, runner(2));
  t.same(four.kind === 'taken' && four.gpus.map(({ index }) => index), [2, 3, 4, 5], 'neighbours');
  t.same(
    [...adopt(holed, ['GPU-00000001', 'GPU-00000002'], runner(3))].map(([, holder]) => holder),
    ['r1', 'r1', 'r3'],
  );
});

t.test('G1, G2: whatever is taken and released, nothing is given twice', async (t) => {
  const gpuArb = fc.array(fc.record({ mig: fc.boolean(), sick: fc.integer({ min: 0, max: 9 }) }), {
    maxLength: 10,
  });
  const actArb = fc.array(
    fc.oneof(
      fc.record({ take: fc.integer({ min: 0, max: 9 }), runner: fc.nat(20) }),
      fc.record({ release: fc.nat(20) }),
    ),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(gpuArb, actArb, (kinds, acts) => {
      const gpus = kinds.map(({ mig, sick }, index) =>
        h100(index, { migMode: mig && index % 3 === 0, problems: sick === 0 ? ['sick'] : [] }),
      );
      let state: HandOut = new Map();
      for (const act of acts) {
        const before = new Map(state);
        if ('release' in act) {
          state = release(state, runner(act.release));
          if ([...state.values()].includes(runner(act.release))) return false;
        } else {
          const result = take(state, gpus, { count: act.take }, runner(act.runner));
          const free = gpus.filter(
            (one) => !one.migMode && one.problems.length === 0 && !state.has(one.uuid),
          );
          if ((result.kind === 'taken') !== (act.take <= 8 && act.take <= free.length))
            return false;
          if (result.kind === 'refused') continue;
          if (
            result.gpus.length !== act.take ||
            new Set(result.gpus.map(({ uuid }) => uuid)).size !== act.take
          )
            return false;
          if (result.gpus.some(({ uuid }) => !free.some((one) => one.uuid === uuid))) return false;
          if (result.state.size !== before.size + act.take) return false;
          if ([...before].some(([uuid, holder]) => result.state.get(uuid) !== holder)) return false;
          state = result.state;
        }
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.pass('300 histories');
});
