// An agent's side of the wire by hand, to say what no agent says.
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { decodeFrame, encodeFrame } from '../../shared/frame.ts';
import { protocolRange } from '../../shared/protocol.ts';

/** How the coordinator ended a link. */
export interface LinkEnd {
  /** Of the WebSocket. */
  close: number;
  code?: string;
  message?: string;
}

/** Connects, sends `frames` after the challenge, each as it is, and waits for the end. */
export async function saysToCoordinator(
  url: string,
  frames: readonly (Uint8Array | string)[],
): Promise<LinkEnd> {
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/agent`);
  const end: LinkEnd = { close: 0 };
  const { promise: greeted, resolve } = Promise.withResolvers<void>();
  socket.on('message', (data: Buffer) => {
    const [name, body] = decodeFrame(data);
    if (name === 'challenge') resolve();
    if (name === 'goodbye') Object.assign(end, body);
  });
  // A socket that is cut while we write says so here; its end comes by `close`.
  socket.on('error', () => undefined);
  const closed = once(socket, 'close') as Promise<[number]>;
  await Promise.race([greeted, closed]);
  for (const frame of frames) socket.send(frame);
  [end.close] = await closed;
  return end;
}

/** A hello that would be fine, of a node with nothing to give; changed as told. */
export function helloFrame(changes: Record<string, unknown> = {}): Uint8Array {
  return encodeFrame('hello', {
    protocol: protocolRange,
    nodeId: 'n0stranger00000000',
    incarnation: 1,
    name: 'stranger',
    version: '0.0.0',
    nonce: 'nonce',
    labels: {},
    resources: { cpu: 0, memoryBytes: 0 },
    host: {},
    gpus: { kind: 'none' },
    drivers: [],
    runners: [],
    attempts: [],
    images: [],
    ...changes,
  });
}
