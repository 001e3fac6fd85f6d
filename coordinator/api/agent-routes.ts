// Bodies above limits.inlineBytes on their way to and from agents: `GET /agent/payloads/<hex>` and
// `PUT /agent/results/<attempt token>`. Knowing a digest is no permission to read it (C5): the bearer shows a grant for
// that digest, or the token of an attempt whose input it is.
import type { Clock } from '../../shared/clock.ts';
import { isDigest, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import { isGrantFor, readAttemptToken, type TokenKey } from '../../shared/token.ts';
import type { PayloadStore } from '../payload/payload-store.ts';
import { failPlatform, headerOf, pour, respond, type Exchange } from './exchange.ts';
import type { CoordinatorPort } from './port.ts';
import { checkDeclared, streamBody } from './request-body.ts';

export interface AgentRouteParts {
  port: CoordinatorPort;
  payloads: PayloadStore;
  tokenKey: TokenKey;
  clock: Clock;
}

export class AgentRoutes {
  readonly #parts: AgentRouteParts;

  constructor(parts: AgentRouteParts) {
    this.#parts = parts;
  }

  /** `x.target` is the path behind `/agent`. */
  async handle(x: Exchange): Promise<void> {
    try {
      const [, kind, name, ...rest] = (x.target.split('?', 1)[0] ?? '').split('/');
      if (rest.length > 0 || !name) throw new Failure('NOT_FOUND', 'no such route for agents');
      if (kind === 'payloads' && x.req.method === 'GET') return await this.#payload(x, name);
      if (kind === 'results' && x.req.method === 'PUT') return await this.#result(x, name);
      throw new Failure('NOT_FOUND', 'no such route for agents');
    } catch (thrown) {
      failPlatform(x, thrown);
    }
  }

  async #payload(x: Exchange, hex: string): Promise<void> {
    const digest = `sha256:${hex}`;
    if (!isDigest(digest)) throw new Failure('NOT_FOUND', 'a payload is named by 64 hex digits');
    const bearer = /^Bearer (\S+)$/i.exec(headerOf(x.req, 'authorization') ?? '')?.[1];
    if (bearer === undefined || !(await this.#mayRead(bearer, digest)))
      throw new Failure('UNAUTHORIZED', 'the token does not grant this payload');
    const { sizeBytes, bytes } = await this.#parts.payloads.open(digest);
    const type = ['content-type', 'application/octet-stream'];
    x.res.writeHead(200, [...type, 'content-length', String(sizeBytes)]);
    await pour(x, bytes);
  }

  async #mayRead(bearer: string, digest: Digest): Promise<boolean> {
    if (isGrantFor(this.#parts.tokenKey, bearer, digest)) return true;
    const attempt = readAttemptToken(this.#parts.tokenKey, bearer);
    if (!attempt) return false;
    const record = await this.#parts.port.readRequest(attempt.requestId);
    return record?.input.kind === 'payload' && record.input.digest === digest;
  }

  async #result(x: Exchange, token: string): Promise<void> {
    if (!readAttemptToken(this.#parts.tokenKey, token))
      throw new Failure('UNAUTHORIZED', 'the attempt token is not genuine');
    checkDeclared(x.req, limits.resultBytes);
    const stored = await this.#parts.payloads.write(streamBody(x.req, this.#parts.clock), {
      maxBytes: limits.resultBytes,
    });
    respond(x, 201, ['content-type', 'application/json'], JSON.stringify(stored));
  }
}
