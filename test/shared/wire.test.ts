// Frames, messages and tokens against what a peer may send: nothing crashes, everything has a code, forgeries fail.
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import t from 'tap';
import { Failure } from '../../shared/failure.ts';
import { decodeFrame, encodeFrame } from '../../shared/frame.ts';
import { seededChance } from '../../shared/chance.ts';
import { isRequestId, newRequestId, partitionOfRequest, type RunnerId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import { checkMessage, commonVersion } from '../../shared/protocol.ts';
import {
  attemptToken,
  isGrantFor,
  grantToken,
  leaseToken,
  linkProof,
  readAttemptToken,
  readLeaseToken,
} from '../../shared/token.ts';
import { digestOf } from '../../shared/digest.ts';

const key = new Uint8Array(32).fill(1);

function codeOf(run: () => unknown): string | undefined {
  try {
    run();
    return undefined;
  } catch (thrown) {
    return thrown instanceof Failure ? thrown.code : `bug: ${String(thrown)}`;
  }
}

void t.test('a frame comes back as it was sent', async (t) => {
  const plain = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.string(),
      fc.integer(),
      fc.double({ noNaN: true }),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('value'), { maxLength: 5 }),
      fc.dictionary(
        fc.string().filter((name) => name !== '__proto__'),
        tie('value'),
        { maxKeys: 5, noNullPrototype: true },
      ),
    ),
  })).value;
  fc.assert(
    fc.property(fc.string(), plain, (name, body) => {
      const [gotName, gotBody] = decodeFrame(encodeFrame(name, body));
      return gotName === name && JSON.stringify(gotBody) === JSON.stringify(body);
    }),
  );
  t.pass();
});

void t.test('hostile frames are refused with a code before anything is built', async (t) => {
  const deep = (count: number): Uint8Array =>
    new Uint8Array(Buffer.concat([Buffer.alloc(count, 0x91), Buffer.from([0xc0])]));
  const records = new Packr({ useRecords: true }).pack(['x', { a: 1 }]);
  const cyclic: Record<string, unknown> = {};
  cyclic['self'] = cyclic;
  const references = new Packr({ structuredClone: true }).pack(['x', cyclic]);
  const cases: [string, Uint8Array, string][] = [
    ['empty', new Uint8Array(), 'FRAME_INVALID'],
    ['not msgpack', Uint8Array.of(0xc1), 'FRAME_INVALID'],
    ['too deep', deep(limits.frameDepth + 1), 'FRAME_INVALID'],
    ['a million deep', deep(1_000_000), 'FRAME_INVALID'],
    ['record extension', records, 'FRAME_INVALID'],
    ['reference extension', references, 'FRAME_INVALID'],
    ['array of 4 G', Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff), 'FRAME_INVALID'],
    ['map of 4 G', Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff), 'FRAME_INVALID'],
    ['string of 4 G', Uint8Array.of(0xdb, 0xff, 0xff, 0xff, 0xff), 'FRAME_INVALID'],
    ['bytes after the value', Uint8Array.of(0x92, 0xa1, 0x78, 0xc0, 0xc0), 'FRAME_INVALID'],
    ['three elements', Uint8Array.of(0x93, 0xa1, 0x78, 0xc0, 0xc0), 'FRAME_INVALID'],
    ['name is a number', Uint8Array.of(0x92, 0x01, 0xc0), 'FRAME_INVALID'],
    ['too large', new Uint8Array(limits.frameBytes + 1), 'FRAME_TOO_LARGE'],
  ];
  for (const [name, bytes, code] of cases)
    t.equal(
      codeOf(() => decodeFrame(bytes)),
      code,
      name,
    );
  t.equal(
    codeOf(() => encodeFrame('x', new Uint8Array(limits.frameBytes))),
    'FRAME_TOO_LARGE',
    'ours too',
  );
});

void t.test('random and mutated frames never crash and never hang', async (t) => {
  const good = encodeFrame('finished', {
    token: 'x',
    outcome: { kind: 'failed', code: 'X', message: 'y' },
    durationMs: 1,
  });
  const chance = seededChance(42);
  const counts: Record<string, number> = {};
  for (let round = 0; round < 50_000; round += 1) {
    let bytes: Uint8Array;
    if (round % 2 === 0)
      bytes = chance.bytes(1 + Math.floor(chance.fraction('size') * 64), 'frame');
    else {
      bytes = good.slice();
      for (let flips = 0; flips < 3; flips += 1)
        bytes[Math.floor(chance.fraction('at') * bytes.length)] = Math.floor(
          chance.fraction('byte') * 256,
        );
    }
    const code = codeOf(() => checkMessage('agent', ...decodeFrame(bytes))) ?? 'fine';
    counts[code] = (counts[code] ?? 0) + 1;
  }
  t.same(
    Object.keys(counts).filter((code) => !['fine', 'FRAME_INVALID'].includes(code)),
    [],
  );
});

void t.test(
  'messages are checked by their row: shape, sender, unknown names and fields',
  async (t) => {
    t.same(checkMessage('coordinator', 'ack', { token: 'x', later: 1 }), {
      name: 'ack',
      body: { token: 'x' },
    });
    t.equal(checkMessage('agent', 'fromTheFuture', {}), undefined);
    t.equal(checkMessage('agent', 'constructor', {}), undefined);
    t.throws(() => checkMessage('agent', 'ack', { token: 'x' }), { code: 'FRAME_INVALID' });
    t.throws(() => checkMessage('agent', 'started', { token: 5 }), {
      code: 'FRAME_INVALID',
      message: /started\.token/,
    });
    t.throws(() => checkMessage('agent', 'started', null), { code: 'FRAME_INVALID' });
  },
);

void t.test('the highest common version, or none', async (t) => {
  t.equal(commonVersion({ min: 1, max: 3 }, { min: 2, max: 5 }), 3);
  t.equal(commonVersion({ min: 1, max: 1 }, { min: 2, max: 5 }), undefined);
});

void t.test('tokens: what was sealed is read, and nothing else', async (t) => {
  const requestId = newRequestId(1_790_000_000_000, 63, seededChance(1));
  t.ok(isRequestId(requestId));
  t.equal(partitionOfRequest(requestId), 63);
  const attempt = { partition: 63, epoch: 4, requestId, number: 2, nonce: '0123456789abcdef' };
  const token = attemptToken(key, attempt);
  t.same(readAttemptToken(key, token), attempt);
  t.equal(readAttemptToken(new Uint8Array(32), token), undefined, 'another key');
  for (let at = 0; at < token.length; at += 1) {
    const forged = `${token.slice(0, at)}${token[at] === 'a' ? 'b' : 'a'}${token.slice(at + 1)}`;
    if (readAttemptToken(key, forged) !== undefined) t.fail(`forged at ${at}: ${forged}`);
  }
  const runner = 'r00mvfd0q800000000' as RunnerId;
  t.same(readLeaseToken(key, leaseToken(key, runner, '17')), { runnerId: runner, leaseId: '17' });
  t.equal(readLeaseToken(key, token), undefined, 'an attempt is no lease');
  t.ok(isGrantFor(key, grantToken(key, digestOf('a')), digestOf('a')));
  t.notOk(isGrantFor(key, grantToken(key, digestOf('a')), digestOf('b')));
  const challenge = { coordinatorNonce: 'c', agentNonce: 'a', nodeId: 'n' };
  t.not(
    linkProof('s', 'agent', challenge),
    linkProof('s', 'coordinator', challenge),
    'a proof cannot be mirrored',
  );
});
