// What every peer transport must do.
import type { Test } from 'tap';
import type { Peer, PeerTransport } from '../../agent/content/peer-transport.ts';
import { digestOf } from '../../shared/digest.ts';
import { limits } from '../../shared/limits.ts';

export interface PeersUnderTest {
  transport: PeerTransport;
  /** Holds `blob`, and lets `peer.ticket` read it and nothing else. */
  peer: Peer;
  blob: Uint8Array;
  /** Another blob that the peer holds, without a ticket for us. */
  secret: Uint8Array;
  /** Nobody is there. */
  nobody: Peer;
  /** Takes or frees all its upload slots. */
  busy(isBusy: boolean): Promise<void>;
}

export function peerTransportConformance(t: Test, make: () => Promise<PeersUnderTest>): void {
  const never = new AbortController().signal;

  void t.test('gives exactly the piece that was asked for', async (t) => {
    const { transport, peer, blob } = await make();
    for (const [offset, sizeBytes] of [
      [0, 1],
      [0, blob.byteLength],
      [blob.byteLength - 1, 1],
      [1000, 5000],
    ] as const) {
      const answer = await transport.read(peer, digestOf(blob), { offset, sizeBytes }, never);
      const wanted = Buffer.from(blob.subarray(offset, offset + sizeBytes));
      t.ok(
        answer.kind === 'piece' && wanted.equals(answer.bytes),
        `${sizeBytes} bytes from ${offset}`,
      );
    }
  });

  void t.test('C5: absent, and there but not permitted, look the same', async (t) => {
    const { transport, peer, secret, blob } = await make();
    const piece = { offset: 0, sizeBytes: 1 };
    t.same(await transport.read(peer, digestOf('nobody has this'), piece, never), {
      kind: 'missing',
    });
    t.same(await transport.read(peer, digestOf(secret), piece, never), { kind: 'missing' });
    const forged = { ...peer, ticket: `${peer.ticket}x` };
    t.same(await transport.read(forged, digestOf(blob), piece, never), { kind: 'missing' });
  });

  void t.test('C3: a busy peer says so, and serves again when it is not', async (t) => {
    const { transport, peer, blob, busy } = await make();
    const piece = { offset: 0, sizeBytes: 10 };
    await busy(true);
    const answer = await transport.read(peer, digestOf(blob), piece, never);
    t.ok(answer.kind === 'busy' && answer.retryAfterMs > 0);
    await busy(false);
    t.equal((await transport.read(peer, digestOf(blob), piece, never)).kind, 'piece');
  });

  void t.test('what cannot be asked, and who is not there, is a coded failure', async (t) => {
    const { transport, peer, nobody, blob } = await make();
    const read = (from: Peer, offset: number, sizeBytes: number) =>
      transport.read(from, digestOf(blob), { offset, sizeBytes }, never);
    await t.rejects(read(peer, 0, 0), { code: 'INPUT_INVALID' });
    await t.rejects(read(peer, 0, limits.pieceBytes + 1), { code: 'INPUT_INVALID' });
    await t.rejects(read(peer, blob.byteLength, 1), { code: 'ORIGIN_UNAVAILABLE' });
    await t.rejects(read(nobody, 0, 1), { code: 'ORIGIN_UNAVAILABLE' });
  });

  void t.test('an abort is heard', async (t) => {
    const { transport, peer, blob } = await make();
    const reason = new Error('enough');
    const read = transport.read(
      peer,
      digestOf(blob),
      { offset: 0, sizeBytes: 1 },
      AbortSignal.abort(reason),
    );
    await t.rejects(read, reason);
  });
}
