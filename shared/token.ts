// Tokens: short texts under an HMAC-SHA256, checked in constant time. An attempt token fences an attempt (Q3):
// partition, owner epoch, request, number and a nonce. A lease token lets one direct call reach one runner. A grant
// lets one agent read one payload, a ticket one blob of a peer. A proof answers the challenge on the agent link (`--token`).
// Format: `<kind>.<field>.<field>….<mac>`; fields never hold dots. The format is part of the contract (golden file).
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Digest } from './digest.ts';
import { hexOf } from './digest.ts';
import type { RequestId, RunnerId } from './ids.ts';
import { isRequestId, isShortId } from './ids.ts';

export interface Attempt {
  partition: number;
  /** Epoch of the owner that dispatched it. */
  epoch: number;
  requestId: RequestId;
  /** Counts dispatches of the request from 1. */
  number: number;
  nonce: string;
}

export type TokenKey = Uint8Array;

const NONCE = /^[0-9a-f]{16}$/;

export function attemptToken(key: TokenKey, attempt: Attempt): string {
  const { partition, epoch, requestId, number, nonce } = attempt;
  return seal(key, ['a1', String(partition), String(epoch), requestId, String(number), nonce]);
}

/** The attempt that a genuine token names; undefined for anything else. */
export function readAttemptToken(key: TokenKey, token: string): Attempt | undefined {
  const fields = unseal(key, token, 'a1', 5);
  if (!fields) return undefined;
  const [partition, epoch, requestId, number, nonce] = fields;
  if (!requestId || !isRequestId(requestId) || !nonce || !NONCE.test(nonce)) return undefined;
  return {
    partition: Number(partition),
    epoch: Number(epoch),
    requestId,
    number: Number(number),
    nonce,
  };
}

/** What a direct call may do at the agent: one call, and one cancel of it. */
export function leaseToken(key: TokenKey, runnerId: RunnerId, leaseId: string): string {
  return seal(key, ['l1', runnerId, leaseId]);
}

export function readLeaseToken(
  key: TokenKey,
  token: string,
): { runnerId: RunnerId; leaseId: string } | undefined {
  const fields = unseal(key, token, 'l1', 2);
  const [runnerId, leaseId] = fields ?? [];
  if (!runnerId || !leaseId || !isShortId(runnerId)) return undefined;
  return { runnerId: runnerId as RunnerId, leaseId };
}

/** Lets the bearer read one payload of the coordinator. */
export function grantToken(key: TokenKey, digest: Digest): string {
  return seal(key, ['g1', hexOf(digest)]);
}

export function isGrantFor(key: TokenKey, token: string, digest: Digest): boolean {
  return unseal(key, token, 'g1', 1)?.[0] === hexOf(digest);
}

/** Lets a peer read one blob of the node whose key this is (C5). */
export function peerTicket(key: TokenKey, digest: Digest): string {
  return seal(key, ['p1', hexOf(digest)]);
}

export function isTicketFor(key: TokenKey, token: string, digest: Digest): boolean {
  return unseal(key, token, 'p1', 1)?.[0] === hexOf(digest);
}

/** The answer of `side` to a challenge: knows the shared secret, without showing it. */
export function linkProof(
  secret: string,
  side: 'agent' | 'coordinator',
  challenge: { coordinatorNonce: string; agentNonce: string; nodeId: string },
): string {
  const text = [
    'runmesh-link',
    side,
    challenge.coordinatorNonce,
    challenge.agentNonce,
    challenge.nodeId,
  ];
  return createHmac('sha256', secret).update(text.join('\n')).digest('hex');
}

/** Compares without telling by time how much was right. */
export function sameText(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}

function seal(key: TokenKey, fields: readonly string[]): string {
  const body = fields.join('.');
  return `${body}.${mac(key, body)}`;
}

function unseal(key: TokenKey, token: string, kind: string, count: number): string[] | undefined {
  if (token.length > 512) return undefined;
  const cut = token.lastIndexOf('.');
  const body = token.slice(0, cut);
  if (cut < 0 || !sameText(token.slice(cut + 1), mac(key, body))) return undefined;
  const [first, ...fields] = body.split('.');
  return first === kind && fields.length === count ? fields : undefined;
}

function mac(key: TokenKey, body: string): string {
  return createHmac('sha256', key).update(body).digest('base64url');
}
