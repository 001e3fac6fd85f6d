// The status of a request as server-sent events: the status object at once, at each change, and at the end.
//
// E1  The last event of a stream that ends in order is COMPLETED: clients take the last event for the final state.
//     A stream that cannot come so far (shutdown) is broken off instead of ended.
// E2  Nothing piles up for a slow reader: while its socket is full, changes only set a mark.
// E3  A change between the first look and the watch is not missed: watching begins first.
import type { Clock } from '../../shared/clock.ts';
import { Failure } from '../../shared/failure.ts';
import type { RequestId } from '../../shared/ids.ts';
import { limits } from '../../shared/limits.ts';
import type { RequestRecord } from '../store/records.ts';
import { drained, type Exchange } from './exchange.ts';
import type { CoordinatorPort } from './port.ts';
import { statusAnswer } from './queue-status.ts';

const PING_MS = 15_000;
/** A place in the queue changes without the request changing: it is looked at so often. */
const POSITION_MS = 5_000;

export class StatusStreams {
  readonly #port: CoordinatorPort;
  readonly #clock: Clock;
  #open = 0;

  constructor(port: CoordinatorPort, clock: Clock) {
    this.#port = port;
    this.#clock = clock;
  }

  /** Serves one stream to its end. @throws Failure NOT_FOUND, UNAVAILABLE before the first byte */
  async serve(x: Exchange, id: RequestId, app: string, base: string, logs: boolean): Promise<void> {
    if (this.#open >= limits.statusStreams)
      throw new Failure('UNAVAILABLE', `${limits.statusStreams} status streams are open already`);
    this.#open += 1;
    const wake = new Wake();
    const stopWatching = this.#port.watch(id, () => wake.set());
    x.res.on('close', () => wake.set());
    try {
      const record = await this.#read(id, app);
      x.res.writeHead(200, [
        'content-type',
        'text/event-stream',
        'cache-control',
        'no-cache',
        'x-accel-buffering',
        'no',
        'x-fal-request-id',
        id,
        ...x.cors,
      ]);
      await this.#follow(x, record, base, logs, wake);
    } finally {
      stopWatching();
      this.#open -= 1;
    }
  }

  async #follow(
    x: Exchange,
    first: RequestRecord,
    base: string,
    logs: boolean,
    wake: Wake,
  ): Promise<void> {
    let record = first;
    let said = '';
    let lastSentAt = this.#clock.elapsed();
    while (!x.res.destroyed) {
      const { body } = await statusAnswer(this.#port, record, base, logs);
      const text = JSON.stringify(body);
      if (text !== said) {
        said = text;
        lastSentAt = this.#clock.elapsed();
        x.res.write(`data: ${text}\n\n`);
      } else if (this.#clock.elapsed() - lastSentAt >= PING_MS) {
        lastSentAt = this.#clock.elapsed();
        x.res.write(': ping\n\n');
      }
      if (record.state.kind === 'done') {
        x.res.end();
        return;
      }
      await drained(x.res);
      await wake.wait(this.#clock, POSITION_MS);
      record = await this.#read(record.id, record.app);
    }
  }

  async #read(id: RequestId, app: string): Promise<RequestRecord> {
    const record = await this.#port.readRequest(id);
    if (record?.app !== app) throw new Failure('NOT_FOUND', 'no such request');
    return record;
  }
}

/** A mark that somebody waits for: set while nobody waits, it is kept. */
class Wake {
  #isSet = false;
  #waiter: (() => void) | undefined;

  set(): void {
    this.#isSet = true;
    this.#waiter?.();
  }

  /** Resolves when the mark was set, or after `mostMs`; clears it. */
  wait(clock: Clock, mostMs: number): Promise<void> {
    return new Promise((resolve) => {
      const settle = (): void => {
        timer.cancel();
        this.#waiter = undefined;
        this.#isSet = false;
        resolve();
      };
      const timer = clock.after(mostMs, settle);
      this.#waiter = settle;
      if (this.#isSet) settle();
    });
  }
}
