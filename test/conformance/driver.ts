// What every Driver must do with a runner, whatever it runs it in. The apps below are told apart by `APP`; a driver
// that runs real programs gets them as shell scripts for a busybox in `bin/`.
import { get } from 'node:http';
import type { Test } from 'tap';
import type { Driver, RunnerSource, RunnerSpec, Running } from '../../agent/runner/driver.ts';
import { newRunnerId } from '../../shared/ids.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';

/** Answers on PORT; ends with 3 on SIGTERM, or goes on when STUBBORN. */
const SERVE = `echo hello; echo oops >&2
trap '[ -n "$STUBBORN" ] || exit 3' TERM
while :; do ./bin/busybox httpd -f -p $PORT -h . & wait $!; ./bin/busybox sleep 0.05; done 2>/dev/null`;

const SCRIPTS = {
  serve: SERVE,
  crash: 'echo last words; exit 7',
  /** Two generations of children that try to get away. */
  fork: `./bin/busybox setsid ./bin/busybox sh -c './bin/busybox sleep 300 & ./bin/busybox sleep 300' &\n${SERVE}`,
};

export type AppName = keyof typeof SCRIPTS;

export interface DriverUnderTest {
  driver: Driver;
  /** A driver of a later life, on the same data folder. */
  next: () => Driver;
  source: (command: readonly string[]) => RunnerSource;
  /** Everything of this driver that is still on the machine: links, mounts, cgroups, folders, processes. */
  left: () => Promise<string[]>;
}

export function appSpec(
  source: DriverUnderTest['source'],
  app: AppName,
  more: Partial<RunnerSpec> = {},
): RunnerSpec {
  return {
    id: newRunnerId(systemClock.now(), systemChance),
    app: 'acme/test',
    source: source(['./bin/busybox', 'sh', '-c', SCRIPTS[app]]),
    port: 8000,
    gpus: [],
    files: [],
    ...more,
    env: { APP: app, ...more.env },
  };
}

/** The body of a GET, as soon as somebody listens. */
export async function answer(running: Running, path: string): Promise<string> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await once(running, path);
    } catch (thrown) {
      if (tries === 400) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

function once({ address }: Running, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get({ ...address, path, agent: false, timeout: 2_000 }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.on('end', () => resolve(body));
    });
    request.on('error', reject);
  });
}

const never = new AbortController().signal;

async function logHas(running: Running, text: string): Promise<string> {
  for (let tries = 0; ; tries += 1) {
    const { bytes, offset, end } = await running.readLog(0, 65_536);
    const log = new TextDecoder().decode(bytes);
    if (log.includes(text) || tries === 200) return offset + bytes.byteLength === end ? log : '';
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export function driverConformance(t: Test, make: () => DriverUnderTest): void {
  const { driver, next, source, left } = make();

  t.test('starts, answers, logs, ends on SIGTERM, and leaves nothing', async (t) => {
    const spec = appSpec(source, 'serve', { env: { NOTE: 'a b=c' }, cpu: 1, memoryBytes: 2 ** 27 });
    const running = await driver.start(spec, never);
    t.match(await answer(running, '/note.txt'), 'served');
    t.ok(running.pid > 0);
    t.match(await logHas(running, 'oops'), /hello\n/);
    const slice = await running.readLog(2, 3);
    t.strictSame([slice.offset, slice.bytes.byteLength], [2, 3], 'a part of it');
    const past = await running.readLog(10_000, 10);
    t.strictSame(
      [past.offset, past.bytes.byteLength],
      [past.end, 0],
      'past the end there is nothing',
    );
    await running.signal('SIGTERM');
    t.strictSame(await running.exited, { kind: 'code', code: 3 });
    await running.signal('SIGTERM');
    await running.signal('SIGKILL');
    t.match(await logHas(running, 'oops'), 'hello', 'the log outlives the process');
    await running.remove();
    await running.remove();
    t.strictSame(await left(), []);
  });

  t.test('SIGKILL ends one that ignores SIGTERM', async (t) => {
    const running = await driver.start(appSpec(source, 'serve', { env: { STUBBORN: '1' } }), never);
    await answer(running, '/note.txt');
    await running.signal('SIGTERM');
    t.match(await answer(running, '/note.txt'), 'served', 'it goes on');
    await running.signal('SIGKILL');
    t.strictSame(await running.exited, { kind: 'signal', signal: 'SIGKILL' });
    await running.remove();
    t.strictSame(await left(), []);
  });

  t.test('a crash at once is told with its code and last words', async (t) => {
    const running = await driver.start(appSpec(source, 'crash'), never);
    t.strictSame(await running.exited, { kind: 'code', code: 7 });
    t.match(await logHas(running, 'words'), 'last words\n');
    await running.remove();
    t.strictSame(await left(), []);
  });

  t.test('a start that is refused is undone, and says why', async (t) => {
    const spec = {
      ...appSpec(source, 'serve', { env: { APP: 'nope' } }),
      source: source(['./bin/nope']),
    };
    await t.rejects(driver.start(spec, never), { code: 'DRIVER_FAILED', message: /^\w.*: .*nope/ });
    t.strictSame(await left(), []);
  });

  t.test('an aborted start leaves nothing, whenever it is aborted', async (t) => {
    const reason = new Failure('SHUTTING_DOWN', 'stop');
    await t.rejects(driver.start(appSpec(source, 'serve'), AbortSignal.abort(reason)), reason);
    for (const delayMs of [0, 5, 15, 30, 60, 120]) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(reason), delayMs);
      const running = await driver
        .start(appSpec(source, 'serve'), controller.signal)
        .catch((thrown) => {
          t.equal(thrown, reason, `aborted after ${delayMs} ms`);
          return undefined;
        });
      await running?.remove();
    }
    t.strictSame(await left(), []);
  });

  t.test('several at once, each with its own address; remove ends what runs', async (t) => {
    const specs = [0, 1, 2].map(() => appSpec(source, 'fork'));
    const all = await Promise.all(specs.map((spec) => driver.start(spec, never)));
    await Promise.all(all.map((running) => answer(running, '/note.txt')));
    const addresses = all.map(({ address }) => `${address.host}:${address.port}`);
    t.equal(new Set(addresses).size, 3);
    await Promise.all(all.map((running) => running.remove()));
    for (const running of all) t.match(await running.exited, { kind: /signal|unknown/ });
    t.strictSame(await left(), []);
  });

  t.test('a sweep takes what an earlier life left, and nothing twice', async (t) => {
    const running = await driver.start(appSpec(source, 'fork'), never);
    await answer(running, '/note.txt');
    const later = next();
    await later.sweep();
    await later.sweep();
    t.match(await running.exited, { kind: /signal|unknown/ });
    await running.remove();
    t.strictSame(await left(), []);
  });
}
