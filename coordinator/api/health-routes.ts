// Health, readiness, metrics, the API document and the page at `/`: what needs no app.
import type { Registry } from 'prom-client';
import { failPlatform, respond, type Exchange } from './exchange.ts';
import { homePage } from './home-page.ts';
import { openApiDocument } from './openapi-document.ts';
import type { CoordinatorPort } from './port.ts';
import { Failure } from '../../shared/failure.ts';

export interface HealthParts {
  port: CoordinatorPort;
  registry: Registry;
  /** Brings gauges up to date before a scrape. */
  refreshCounts: () => Promise<void>;
  version: string;
}

const JSON_TYPE = ['content-type', 'application/json'];
const TEXT_TYPE = ['content-type', 'text/plain; charset=utf-8'];

export class HealthRoutes {
  readonly #parts: HealthParts;
  readonly #document: string;

  constructor(parts: HealthParts) {
    this.#parts = parts;
    this.#document = JSON.stringify(openApiDocument(parts.version));
  }

  async handle(x: Exchange, path: string): Promise<void> {
    try {
      if (x.req.method !== 'GET' && x.req.method !== 'HEAD')
        throw new Failure('NOT_FOUND', `no route ${x.req.method ?? ''} ${path.slice(0, 200)}`);
      await this.#route(x, path);
    } catch (thrown) {
      failPlatform(x, thrown);
    }
  }

  async #route(x: Exchange, path: string): Promise<void> {
    const { registry, refreshCounts, version } = this.#parts;
    switch (path) {
      case '/healthz':
        return respond(x, 200, JSON_TYPE, JSON.stringify(await this.#health()));
      case '/readyz': {
        const ready = this.#parts.port.ready();
        return ready.yes
          ? respond(x, 200, JSON_TYPE, '{"status":"ready"}')
          : respond(x, 503, JSON_TYPE, JSON.stringify({ status: 'not ready', reason: ready.no }));
      }
      case '/metrics':
        await refreshCounts();
        return respond(x, 200, ['content-type', registry.contentType], await registry.metrics());
      case '/openapi.json':
        return respond(x, 200, JSON_TYPE, this.#document);
      case '/':
        return respond(x, 200, TEXT_TYPE, homePage(version));
      default:
        throw new Failure('NOT_FOUND', `no route ${path.slice(0, 200)}`);
    }
  }

  /** Always `ok`: the process answers. The epoch is left out while the core cannot be asked. */
  async #health(): Promise<Record<string, unknown>> {
    const { version, port } = this.#parts;
    if (!port.ready().yes) return { status: 'ok', version };
    const counts = await port.query('counts', {}).catch(() => undefined);
    return { status: 'ok', version, ...(counts ? { epoch: counts.epoch } : {}) };
  }
}
