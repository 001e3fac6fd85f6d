// What every GPU probe must do (P1–P3 of agent/node/gpu-probe.ts); run against the real one with fake tools on PATH
// and against the one in memory.
import type t from 'tap';
import type { GpuProbe } from '../../agent/node/gpu-probe.ts';

type Test = typeof t;

/** A probe and the machine that it looks at. */
export interface ProbeRig {
  probe: GpuProbe;
  /** From now on the machine has eight H100s, no NVIDIA anything, a broken driver, or one that hangs. */
  machine(has: 'h100x8' | 'nothing' | 'broken driver' | 'hung driver'): void;
  /** How many looks were taken at the machine. */
  looks(): number;
}

/** Runs the suite; `make` gives a fresh rig. */
export async function gpuProbeConformance(
  parent: Test,
  name: string,
  make: () => Promise<ProbeRig>,
): Promise<void> {
  const going = new AbortController().signal;
  const test = (what: string, body: (t: Test, rig: ProbeRig) => Promise<void>): Promise<unknown> =>
    parent.test(`${name}: ${what}`, async (t) => {
      const rig = await make();
      t.teardown(() => rig.probe.close());
      await body(t as Test, rig);
    });

  await test('sees what the machine has', async (t, { probe, machine }) => {
    machine('h100x8');
    const reading = await probe.read(going);
    if (reading.kind !== 'gpus') return void t.fail(`it says ${JSON.stringify(reading)}`);
    t.equal(reading.gpus.length, 8);
    t.same(
      reading.gpus.map(({ index }) => index),
      [0, 1, 2, 3, 4, 5, 6, 7],
    );
    t.ok(reading.gpus.every(({ name: model, minor }) => /H100/.test(model) && minor !== undefined));
  });

  await test('a machine without GPUs is not a failure', async (t, { probe, machine }) => {
    machine('nothing');
    t.same(await probe.read(going), { kind: 'none' });
  });

  await test('P1: no answer has a reason, a beginning and what was seen before', async (t, {
    probe,
    machine,
  }) => {
    machine('h100x8');
    await probe.read(going);
    machine('broken driver');
    const first = await probe.read(going);
    const second = await probe.read(going);
    if (first.kind !== 'no_answer' || second.kind !== 'no_answer')
      return void t.fail('it says it has an answer');
    t.match(first.reason, /couldn't communicate/);
    t.equal(second.sinceMs, first.sinceMs, 'since the first in a row');
    t.equal(second.lastGood?.reading.kind, 'gpus');
    t.ok((second.lastGood?.ageMs ?? -1) >= (first.lastGood?.ageMs ?? 0), 'and it ages');
    machine('nothing');
    t.same(await probe.read(going), { kind: 'none' }, 'an answer ends the silence');
    machine('broken driver');
    const later = await probe.read(going);
    t.ok(later.kind === 'no_answer' && later.lastGood?.reading.kind === 'none');
  });

  await test('P2: callers share one look', async (t, { probe, machine, looks }) => {
    machine('h100x8');
    const before = looks();
    const readings = await Promise.all([probe.read(going), probe.read(going), probe.read(going)]);
    t.equal(looks() - before, 1);
    t.same(readings[1], readings[0]);
    await probe.read(going);
    t.equal(looks() - before, 2, 'a later caller gets a new one');
  });

  await test('P1: a caller may go before a hung driver answers, and closing ends it', async (t, {
    probe,
    machine,
  }) => {
    machine('hung driver');
    const leaving = new AbortController();
    const left = probe.read(leaving.signal);
    const stays = probe.read(going);
    leaving.abort(new Error('left'));
    await t.rejects(left, { message: 'left' });
    await t.rejects(probe.read(AbortSignal.abort(new Error('too late'))), { message: 'too late' });
    probe.close();
    const reading = await stays;
    t.ok(
      reading.kind === 'no_answer' && reading.reason.includes('the agent is stopping'),
      JSON.stringify(reading),
    );
    machine('h100x8');
    t.equal((await probe.read(going)).kind, 'no_answer', 'a closed probe looks no more');
  });
}
