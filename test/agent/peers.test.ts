// The peer transport over HTTP against the agent's own blob route and a real store, and its twin in memory.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { ContentStore } from '../../agent/content/content-store.ts';
import { HttpPeerTransport } from '../../agent/content/http-peer-transport.ts';
import { MemoryPeerTransport } from '../../agent/content/memory-peer-transport.ts';
import { BlobUploads } from '../../agent/http/blob-uploads.ts';
import { LeaseBook } from '../../agent/http/lease-book.ts';
import { seededChance } from '../../shared/chance.ts';
import { digestOf } from '../../shared/digest.ts';
import { peerTicket } from '../../shared/token.ts';
import { peerTransportConformance } from '../conformance/peer-transport.ts';

const key = new Uint8Array(32).fill(3);
const chance = seededChance(3);
const blob = Buffer.from(chance.bytes(300_000, 'blob'));
const secret = Buffer.from('not for everybody');
const ticket = peerTicket(key, digestOf(blob));

void t.test('HTTP', async (t) => {
  const store = await ContentStore.open({ folder: join(t.testdir(), 'content'), chance });
  for (const bytes of [blob, secret]) {
    const ingest = await store.ingest({ digest: digestOf(bytes), sizeBytes: bytes.byteLength });
    await ingest.write(bytes);
    await store.commit(ingest);
  }
  const leases = new LeaseBook();
  leases.open(key);
  peerTransportConformance(t, async () => {
    let uploads = new BlobUploads({ blobs: store, leases });
    const server = createServer((request, response) =>
      uploads.serve((request.url ?? '').slice('/blobs/'.length), request, response),
    );
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as AddressInfo;
    const transport = new HttpPeerTransport();
    t.teardown(async () => {
      await transport.close();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    });
    return {
      transport,
      blob,
      secret,
      peer: { address: { host: '127.0.0.1', port }, ticket },
      nobody: { address: { host: '127.0.0.1', port: 1 }, ticket },
      busy: async (isBusy) => {
        uploads = new BlobUploads({ blobs: store, leases, uploadsAtOnce: isBusy ? 0 : 1 });
      },
    };
  });
});

void t.test('memory', async (t) => {
  peerTransportConformance(t, async () => {
    const transport = new MemoryPeerTransport();
    let isBusy = false;
    transport.peers.set('127.0.0.1:8801', {
      blobs: new Map([blob, secret].map((bytes) => [digestOf(bytes), bytes])),
      mayRead: (shown, digest) => shown === ticket && digest === digestOf(blob),
      isBusy: () => isBusy,
    });
    return {
      transport,
      blob,
      secret,
      peer: { address: { host: '127.0.0.1', port: 8801 }, ticket },
      nobody: { address: { host: '127.0.0.1', port: 1 }, ticket },
      busy: async (now) => {
        isBusy = now;
      },
    };
  });
});
