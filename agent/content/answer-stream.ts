// An HTTP answer as a blob stream: 200 begins at 0, 206 where its Content-Range says.
import { headerOf, type GetAnswer } from '../../shared/http-get.ts';
import type { BlobStream } from './origin.ts';

/** Undefined for any other status, and for a range that was not asked for; the body is then still unread. */
export function answerStream(answer: GetAnswer, askedOffset: number): BlobStream | undefined {
  const { status, headers, body } = answer;
  if (status === 200) {
    const length = headerOf(headers, 'content-length');
    const isPlain = headerOf(headers, 'content-encoding') === undefined;
    return length !== undefined && isPlain
      ? { stream: body, offset: 0, sizeBytes: Number(length) }
      : { stream: body, offset: 0 };
  }
  const range = headerOf(headers, 'content-range') ?? '';
  const [, from, size] = /^bytes ([0-9]+)-[0-9]+\/([0-9]+|\*)$/.exec(range) ?? [];
  if (status !== 206 || Number(from) !== askedOffset) return undefined;
  return size === undefined || size === '*'
    ? { stream: body, offset: askedOffset }
    : { stream: body, offset: askedOffset, sizeBytes: Number(size) };
}
