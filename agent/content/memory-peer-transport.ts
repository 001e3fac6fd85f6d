// The in-memory twin of the peer transport: a network of peers in one process, for tests and the simulator.
import type { Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { formatHostPort } from '../../shared/host-port.ts';
import { limits } from '../../shared/limits.ts';
import type { Peer, PeerTransport, Piece, PieceAnswer } from './peer-transport.ts';

export interface MemoryPeer {
  blobs: ReadonlyMap<Digest, Uint8Array>;
  mayRead(ticket: string, digest: Digest): boolean;
  isBusy(): boolean;
}

export class MemoryPeerTransport implements PeerTransport {
  /** By `host:port`. */
  readonly peers = new Map<string, MemoryPeer>();

  async read(peer: Peer, digest: Digest, piece: Piece, signal: AbortSignal): Promise<PieceAnswer> {
    signal.throwIfAborted();
    if (piece.sizeBytes < 1 || piece.sizeBytes > limits.pieceBytes)
      throw new Failure('INPUT_INVALID', `a piece has 1 to ${limits.pieceBytes} bytes`);
    const name = formatHostPort(peer.address);
    const there = this.peers.get(name);
    if (!there) throw new Failure('ORIGIN_UNAVAILABLE', `peer ${name} does not answer`);
    const blob = there.blobs.get(digest);
    if (!blob || !there.mayRead(peer.ticket, digest)) return { kind: 'missing' };
    if (there.isBusy()) return { kind: 'busy', retryAfterMs: 50 };
    if (piece.offset + piece.sizeBytes > blob.byteLength)
      throw new Failure('ORIGIN_UNAVAILABLE', `peer ${name} answered 416`);
    return { kind: 'piece', bytes: blob.slice(piece.offset, piece.offset + piece.sizeBytes) };
  }

  async close(): Promise<void> {
    this.peers.clear();
  }
}
