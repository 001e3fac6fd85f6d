// What every origin must do, wherever its bytes come from.
import { buffer } from 'node:stream/consumers';
import type { Test } from 'tap';
import type { Origin } from '../../agent/content/origin.ts';
import { digestOf } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';

export interface OriginUnderTest {
  /** Gives `blob`, and has nothing with another digest. */
  origin: Origin;
  blob: Buffer;
  /** The origin knows digests: it can say that it lacks one. */
  byDigest: boolean;
  /** Codes for what is not there. */
  missing: string;
}

export function originConformance(t: Test, under: OriginUnderTest): void {
  const { origin, blob } = under;
  const never = new AbortController().signal;
  const request = under.byDigest ? { digest: digestOf(blob) } : {};

  t.test('gives the whole blob from 0', async (t) => {
    const opened = await origin.open(request, never);
    t.equal(opened.offset, 0);
    if (opened.sizeBytes !== undefined) t.equal(opened.sizeBytes, blob.byteLength);
    t.ok((await buffer(opened.stream)).equals(blob));
  });

  t.test('gives the rest from an offset, or says that it begins elsewhere', async (t) => {
    const opened = await origin.open({ ...request, offset: 1000 }, never);
    t.ok(opened.offset === 1000 || opened.offset === 0);
    if (opened.sizeBytes !== undefined) t.equal(opened.sizeBytes, blob.byteLength, 'of the whole');
    t.ok((await buffer(opened.stream)).equals(blob.subarray(opened.offset)));
  });

  t.test('refuses what it does not have, with a code', async (t) => {
    if (!under.byDigest) return;
    const absent = { digest: digestOf('nobody has this') };
    await t.rejects(origin.open(absent, never), { code: under.missing });
    await t.rejects(origin.open(absent, never), Failure);
  });

  t.test('stops when told', async (t) => {
    const stop = new AbortController();
    stop.abort(new Error('enough'));
    await t.rejects(origin.open(request, stop.signal), { message: 'enough' });
  });

  t.test('its name holds no secrets', async (t) => {
    t.match(origin.name, /^[^?#@]+$/);
  });
}
