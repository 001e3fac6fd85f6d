// What the API may rely on, run against the real shell and core, and against the fake that the api tests stand on. The
// app `acme/echo` is deployed, and nothing runs its requests.
import type { Test } from 'tap';
import type { CoordinatorPort, Command } from '../../coordinator/api/port.ts';
import { systemChance } from '../../shared/chance.ts';
import { newRequestId, partitionOfApp, type RequestId } from '../../shared/ids.ts';

const APP = 'acme/echo';

function submission(more: Partial<Command<'submit'>> = {}): Command<'submit'> {
  return {
    app: APP,
    method: 'POST',
    path: '/deep',
    query: '?a=1',
    headers: [['content-type', 'application/json']],
    input: { kind: 'inline', bytes: Buffer.from('{"n":1}') },
    priority: 0,
    noRetry: false,
    ...more,
  };
}

async function submitted(
  port: CoordinatorPort,
  more: Partial<Command<'submit'>> = {},
): Promise<RequestId> {
  const answer = await port.ask('submit', submission(more));
  if ('refused' in answer) throw new Error(answer.message);
  return answer.requestId;
}

async function textOf(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

export function portConformance(
  t: Test,
  open: () => Promise<{ port: CoordinatorPort; close: () => Promise<void> }>,
): void {
  const on = (name: string, check: (t: Test, port: CoordinatorPort) => Promise<void>): void =>
    void t.test(name, async (t) => {
      const { port, close } = await open();
      // Timers of ours do not keep the process alive; this one does.
      const alive = setInterval(() => undefined, 1_000);
      try {
        await check(t, port);
      } finally {
        clearInterval(alive);
        await close();
      }
    });

  on('a submit is on disk when it is answered (Q1)', async (t, port) => {
    const id = await submitted(port, { startTimeoutMs: 60_000, priority: 1 });
    const record = await port.readRequest(id);
    t.match(record, {
      id,
      app: APP,
      path: '/deep',
      query: '?a=1',
      priority: 1,
      startTimeoutMs: 60_000,
      attempts: 0,
      state: { kind: 'ready' },
      input: { kind: 'inline', sizeBytes: 7 },
    });
    if (record) t.equal(await textOf(await port.openInput(record)), '{"n":1}');
    t.match(await port.listRequests({ app: APP, limit: 10 }), [{ id }]);
    const unknown = newRequestId(0, partitionOfApp(APP), systemChance);
    t.equal(await port.readRequest(unknown), undefined);
  });

  on('places in the queue, and how it is kept short', async (t, port) => {
    const ids = [await submitted(port), await submitted(port), await submitted(port)];
    const places = await Promise.all(
      ids.map(async (id) => {
        const record = await port.readRequest(id);
        if (!record) throw new Error('no record');
        const { app, priority, sequence } = record;
        return port.query('position', { app, priority, sequence, requestId: id });
      }),
    );
    t.same(
      places.map((place) => place.position),
      [0, 1, 2],
    );
    t.ok(places.every(({ waiting }) => waiting.code.length > 0 && waiting.text.length > 0));
    t.match(await port.ask('submit', submission({ maxQueueLength: 1 })), { refused: 'QUEUE_FULL' });
    t.match(await port.ask('submit', submission({ maxQueueLength: 3 })), { position: 3 });
    t.match(await port.ask('submit', submission({ app: 'acme/none' })), { refused: 'NOT_FOUND' });
  });

  on('cancel in the queue: ended at once, told to those who watch', async (t, port) => {
    const id = await submitted(port);
    let told = 0;
    const stop = port.watch(id, () => (told += 1));
    t.equal(await port.ask('cancel', { requestId: id, app: 'acme/other' }), 'not_found');
    t.equal(await port.ask('cancel', { requestId: id, app: APP }), 'requested');
    const record = await port.readRequest(id);
    t.match(record?.state, {
      kind: 'done',
      end: { status: 499, failure: { code: 'CLIENT_CANCELLED' } },
    });
    t.ok(told > 0, 'the watcher was called');
    stop();
    t.equal(await port.ask('cancel', { requestId: id, app: APP }), 'already_completed');
    const unknown = newRequestId(0, partitionOfApp(APP), systemChance);
    t.equal(await port.ask('cancel', { requestId: unknown, app: APP }), 'not_found');
  });

  on('direct calls: refused, timed out, given up without harm', async (t, port) => {
    const callId = port.newCallId();
    t.not(port.newCallId(), callId);
    t.match(await port.ask('call', { callId, app: 'acme/none' }), { refused: 'NOT_FOUND' });
    port.callEnded(callId);
    const late = port.newCallId();
    const answer = await port.ask('call', { callId: late, app: APP, startTimeoutMs: 50 });
    t.match(answer, { refused: 'START_TIMEOUT' });
    port.callEnded(late);
    const gone = port.newCallId();
    void port.ask('call', { callId: gone, app: APP });
    await new Promise((resolve) => setImmediate(resolve));
    port.callEnded(gone);
  });

  on('deploys, stops and queries', async (t, port) => {
    t.equal(
      await port.ask('stopRunner', { runnerId: 'r00000000000000000' as never, how: 'stop' }),
      'not_found',
    );
    t.same(port.ready(), { yes: true });
    t.match(await port.query('counts', {}), { epoch: Number, linksUp: Number });
    t.equal(await port.query('app', { app: 'acme/none' }), undefined);
    t.same(await port.listRevisions('acme/none'), []);
  });
}
