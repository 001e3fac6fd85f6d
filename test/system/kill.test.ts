// kill -9 at the worst moments: every accepted request completes, executions are counted, and nothing stays behind.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../examples/demo/programs.ts';
import { cgiApp, executionsIn } from './cgi-app.ts';
import { namedAfter } from './leftovers.ts';
import { openStage, whyNotHere } from './stage.ts';

// Also when it is run by hand: tap gives a file 30 s.
t.setTimeout(110_000);

t.test('kill -9', { skip: await whyNotHere() }, async (t) => {
  const stage = await openStage(t, ['node-a']);
  const { client, mesh } = stage;
  const counts = join(stage.folder, 'counts');
  const lines = (line: string): number =>
    existsSync(counts)
      ? readFileSync(counts, 'utf8')
          .split('\n')
          .filter((one) => one === line).length
      : 0;
  const counting = (app: string, scaling: Record<string, number> = {}): string =>
    JSON.stringify({
      app,
      command: ['node', 'server.mjs'],
      dir: join(import.meta.dirname, 'counting-app'),
      env: { COUNT: counts },
      scaling: { max_concurrency: 1, keep_alive: 60, ...scaling },
      timeouts: { startup_timeout: 20, termination_grace_period_seconds: 2 },
    });
  const submit = async (app: string, input: Record<string, unknown>): Promise<string> =>
    (await client.queue.submit(app, { input })).request_id;
  const inProgress = (id: string): Promise<void> =>
    until(`${id} runs`, async () => (await stage.request(id)).status === 'IN_PROGRESS');
  const completed = (id: string): Promise<void> =>
    until(`${id} is done`, async () => (await stage.request(id)).status === 'COMPLETED');
  const result = async (app: string, requestId: string): Promise<unknown> =>
    (await client.queue.result(app, { requestId })).data;
  const killCoordinator = async (): Promise<void> => {
    await mesh.coordinator.stop('SIGKILL');
    t.equal(mesh.coordinator.process.signalCode, 'SIGKILL');
  };

  await t.test('the coordinator, with everything under way', async (t) => {
    await stage.deploy(counting('demo/count', { max_multiplexing: 2 }));
    await stage.deploy(counting('demo/cold'));
    await stage.deploy(cgiApp({ app: 'demo/cgi', image: stage.image }));
    const container = await submit('demo/cgi/cgi-bin/slow', { tenths: 40 });
    const flight = await submit('demo/count', { ms: 3_500 });
    const input = { ms: 2_000 };
    const subscribed = client.subscribe('demo/count', { input, pollInterval: 50 });
    for (const id of [container, flight]) await inProgress(id);
    await stage.runnersWhen('demo/count', 'two run', ([one]) => one?.requests.length === 2);
    const queued = await submit('demo/count', { ms: 0 });
    const cold = await Promise.all([1, 2].map(() => submit('demo/cold', {})));
    await killCoordinator();
    t.equal(lines(`began ${flight}`), 1);
    t.equal(lines(`ended ${flight}`), 0, 'it was still running');
    t.equal(lines(`began ${queued}`), 0, 'it had not begun');

    await mesh.restartCoordinator();
    for (const id of [flight, container, queued, ...cold]) {
      await completed(id);
      t.match(await stage.request(id), { httpStatus: 200, attempts: 1 });
    }
    for (const id of [flight, queued]) t.match(await result('demo/count', id), { id });
    for (const id of cold) t.match(await result('demo/cold', id), { id });
    t.match(await result('demo/cgi', container), { slept: true });
    const { data, requestId } = await subscribed;
    t.match(data, { id: requestId }, 'the client that subscribed saw it through');
    for (const id of [flight, requestId, queued, ...cold]) {
      t.equal(lines(`began ${id}`), 1, 'executed once');
      t.equal(lines(`ended ${id}`), 1);
    }
    const [runner, ...more] = await stage.runners('demo/cgi');
    t.equal(more.length, 0, 'the runner lived on');
    t.equal(executionsIn(await stage.log(runner?.id ?? ''), container), 1, 'executed once');
    t.equal((await stage.runners('demo/count')).length, 1);
  });

  await t.test('the coordinator, while the app answers and nobody hears', async (t) => {
    const flight = await submit('demo/count', { ms: 700 });
    await inProgress(flight);
    await killCoordinator();
    await until('the app has answered', async () => lines(`ended ${flight}`) === 1);
    await mesh.restartCoordinator();
    await completed(flight);
    t.match(await result('demo/count', flight), { id: flight });
    t.equal(lines(`began ${flight}`), 1, 'the agent kept the result');
  });

  await t.test('the agent, with a process and a container at work', async (t) => {
    const [agent] = mesh.agents;
    const process = await submit('demo/count', { ms: 1_500 });
    const container = await submit('demo/cgi/cgi-bin/slow', { tenths: 15 });
    for (const id of [process, container]) await inProgress(id);
    const runners = [process, container].map(
      async (id) => (await stage.request(id)).runnerId ?? '',
    );
    const [first = '', second = ''] = await Promise.all(runners);
    await agent?.stop('SIGKILL');
    const kinds = (left: string[]): string[] => [
      ...new Set(left.map((one) => one.split(' ')[0] ?? '')),
    ];
    t.strictSame(
      kinds(namedAfter(second)),
      ['mount', 'namespace', 'cgroup', 'process'],
      'left by it',
    );
    t.ok(kinds(namedAfter(first)).includes('process'));

    await mesh.restartAgent('node-a');
    t.strictSame(namedAfter(first), [], 'swept before it takes work');
    t.strictSame(namedAfter(second), []);
    for (const [app, id] of [
      ['demo/count', process],
      ['demo/cgi', container],
    ] as const) {
      await completed(id);
      t.match(
        await stage.request(id),
        { httpStatus: 200, attempts: 1 },
        'our crash costs no attempt',
      );
      t.ok(await result(app, id));
    }
    t.equal(lines(`began ${process}`), 2, 'what was cut short ran again');
    const again = (await stage.request(container)).runnerId ?? '';
    t.not(again, second);
    t.equal(executionsIn(await stage.log(again), container), 1);
    const old = (await stage.runners('demo/cgi')).find(({ id }) => id === second);
    t.equal(old?.state, 'TERMINATED', 'the coordinator knows that it is gone');
  });

  await t.test('both at once', async (t) => {
    const queued = await submit('demo/count', { ms: 300 });
    await Promise.all([mesh.agents[0]?.stop('SIGKILL'), mesh.coordinator.stop('SIGKILL')]);
    await mesh.restartCoordinator();
    await mesh.restartAgent('node-a');
    await completed(queued);
    t.match(await result('demo/count', queued), { id: queued });
    t.ok(lines(`began ${queued}`) <= 2, 'at most once more than it was cut short');
  });

  await t.test('SIGTERM with work under way leaves nothing', async (t) => {
    const id = await submit('demo/cgi/cgi-bin/slow', { tenths: 600 });
    await inProgress(id);
    t.not(stage.leftovers().length, 0, 'there is something to clean up');
    await mesh.stop();
    t.strictSame(stage.leftovers(), []);
    for (const { process } of [mesh.coordinator, ...mesh.agents]) t.equal(process.exitCode, 0);
    await mesh.restartCoordinator();
    t.match(await stage.request(id), { status: 'IN_QUEUE', attempts: 0 }, 'it waits for a node');
    await client.queue.cancel('demo/cgi', { requestId: id });
    t.match(await stage.request(id), { status: 'COMPLETED', httpStatus: 499 });
  });
});
