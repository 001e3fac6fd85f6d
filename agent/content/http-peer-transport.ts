// Pieces from peers over HTTP Range requests (RFC 9110 §14), so that curl and a registry mirror can speak it too.
import { Agent } from 'undici';
import type { Digest } from '../../shared/digest.ts';
import { asFailure, Failure } from '../../shared/failure.ts';
import { formatHostPort } from '../../shared/host-port.ts';
import { limits } from '../../shared/limits.ts';
import type { Peer, PeerTransport, Piece, PieceAnswer } from './peer-transport.ts';

const CONNECT_MS = 3_000;
/** A peer that sends nothing for this long is given up. */
const SILENCE_MS = 5_000;

export class HttpPeerTransport implements PeerTransport {
  readonly #agent = new Agent({
    connectTimeout: CONNECT_MS,
    headersTimeout: SILENCE_MS,
    bodyTimeout: SILENCE_MS,
    // More at once share the uplink of the peer, and come later all together.
    connections: 2,
  });

  async read(peer: Peer, digest: Digest, piece: Piece, signal: AbortSignal): Promise<PieceAnswer> {
    const name = formatHostPort(peer.address);
    if (piece.sizeBytes < 1 || piece.sizeBytes > limits.pieceBytes)
      throw new Failure('INPUT_INVALID', `a piece has 1 to ${limits.pieceBytes} bytes`);
    try {
      const { statusCode, headers, body } = await this.#agent.request({
        origin: `http://${name}`,
        path: `/blobs/${digest}`,
        method: 'GET',
        headers: {
          range: `bytes=${piece.offset}-${piece.offset + piece.sizeBytes - 1}`,
          'x-runmesh-ticket': peer.ticket,
        },
        signal,
      });
      if (statusCode === 206)
        return { kind: 'piece', bytes: await exactly(body, piece.sizeBytes, name) };
      await body.dump();
      if (statusCode === 404) return { kind: 'missing' };
      if (statusCode === 503)
        return { kind: 'busy', retryAfterMs: Number(headers['x-runmesh-retry-after-ms']) || 50 };
      throw new Failure('ORIGIN_UNAVAILABLE', `peer ${name} answered ${statusCode}`);
    } catch (thrown) {
      signal.throwIfAborted();
      throw asFailure(thrown, 'ORIGIN_UNAVAILABLE');
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

/** Reads no more than it asked for, whatever the peer declares. */
async function exactly(
  body: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  name: string,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(sizeBytes);
  let at = 0;
  for await (const chunk of body) {
    if (at + chunk.byteLength > sizeBytes)
      throw new Failure('ORIGIN_UNAVAILABLE', `peer ${name} sent too much`);
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  if (at < sizeBytes)
    throw new Failure('ORIGIN_UNAVAILABLE', `peer ${name} sent ${at} of ${sizeBytes} bytes`);
  return bytes;
}
