// The seam to other nodes' caches: how a piece of a blob comes from a peer. Real: http-peer-transport.ts, served by
// http/blob-uploads.ts; in memory: memory-peer-transport.ts; both pass test/conformance/peer-transport.ts.
// What a peer gives is not trusted: pieces are verified before anything sees them (C1). Who exchanges what with whom is decided
// elsewhere; nothing asks peers yet.
// C3: `busy` means wait or ask another peer, never "go to the origin".
import type { Digest } from '../../shared/digest.ts';
import type { HostPort } from '../../shared/host-port.ts';

/** A node that holds the blob, and the coordinator's leave to read it there (C5). */
export interface Peer {
  address: HostPort;
  ticket: string;
}

export interface Piece {
  offset: number;
  sizeBytes: number;
}

export type PieceAnswer =
  /** Exactly the bytes of the piece. */
  | { kind: 'piece'; bytes: Uint8Array }
  /** Its upload slots are taken. */
  | { kind: 'busy'; retryAfterMs: number }
  /** It has no such blob for us: absent and not permitted look the same (C5). */
  | { kind: 'missing' };

export interface PeerTransport {
  /** @throws Failure ORIGIN_UNAVAILABLE when the peer does not answer as it should; the signal's reason when aborted */
  read(peer: Peer, digest: Digest, piece: Piece, signal: AbortSignal): Promise<PieceAnswer>;
  close(): Promise<void>;
}
