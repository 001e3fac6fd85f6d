// What every Host must do, whether it moves a kernel or a map. Cases that look at the kernel are in
// test/agent/host.test.ts.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { Host } from '../../agent/host/host.ts';
import { Failure } from '../../shared/failure.ts';

export interface HostUnderTest {
  host: Host;
  /** A folder below `<data>/run`. */
  folder: string;
}

export function hostConformance(t: Test, make: () => HostUnderTest): void {
  t.test('says what it can do', async (t) => {
    const abilities = await make().host.abilities();
    for (const ability of Object.values(abilities)) {
      if (ability.yes) t.pass('yes');
      else t.match(ability.no, /\w/, 'a reason for people');
    }
  });

  t.test('a mount can be unmounted, also twice, also when it never was', async (t) => {
    const { host, folder } = make();
    const at = (name: string): string => join(folder, name);
    for (const name of ['lower', 'upper', 'work', 'merged'])
      await mkdir(at(name), { recursive: true });
    await host.mountOverlay({
      lower: [at('lower')],
      upper: at('upper'),
      work: at('work'),
      target: at('merged'),
    });
    await host.unmount(at('merged'));
    await host.unmount(at('merged'));
    await host.unmount(at('never'));
    t.pass();
  });

  t.test('every runner has an address of its own until it is detached', async (t) => {
    const { host } = make();
    await host.openNetwork();
    await host.openNetwork();
    const [a, b] = await Promise.all([host.attach('runnera'), host.attach('runnerb')]);
    t.not(a.address, b.address);
    t.not(a.namespacePath, b.namespacePath);
    t.match(a.resolvConf, /^nameserver [0-9.]+$/m);
    await t.rejects(host.attach('runnera'), { code: 'CONFLICT' });
    await host.detach('runnera');
    await host.detach('runnera');
    await host.detach('runnerb');
    t.match(await host.attach('runnera'), { address: /^\d+\.\d+\.\d+\.\d+$/ }, 'again');
    await host.sweep();
    await host.openNetwork();
    t.ok(await host.attach('runnera'), 'after a sweep too');
    await host.sweep();
  });

  t.test('an aborted call does nothing and fails with the reason of the signal', async (t) => {
    const { host, folder } = make();
    const reason = new Failure('SHUTTING_DOWN', 'stop');
    const aborted = AbortSignal.abort(reason);
    await host.openNetwork();
    await t.rejects(host.attach('runnerc', aborted), reason);
    await host.detach('runnerc');
    const node = { kind: 'fifo', path: join(folder, 'fifo'), mode: 0o600 } as const;
    await t.rejects(host.makeDevices([node], aborted), reason);
    await host.sweep();
  });

  t.test('a cgroup goes, also twice', async (t) => {
    const { host } = make();
    const cgroup = await host.cgroup('runnerd');
    if (cgroup === undefined) {
      t.pass('no cgroups here');
      return;
    }
    t.match(cgroup.path, /^\/.+\/runnerd$/);
    await cgroup.make({ processes: 16, memoryBytes: 64 * 2 ** 20, cpu: 0.5 });
    t.strictSame(cgroup.members(), []);
    t.equal(cgroup.outOfMemory(), false);
    await cgroup.kill();
    await cgroup.remove();
    await cgroup.remove();
  });
}
