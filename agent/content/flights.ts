// One flight per key, however many want the same (F51). Each passenger has its own AbortSignal and can leave; the
// flight is aborted when the last has left. A flight ends once and is then forgotten: the next caller starts anew.

interface Flight<Result, News> {
  readonly controller: AbortController;
  readonly landed: Promise<Result>;
  passengers: number;
  latest: News | undefined;
  readonly listeners: Set<(news: News) => void>;
}

/** How to fly: works until `signal`, tells `news` to everybody on board. */
export type Fly<Result, News> = (
  tell: (news: News) => void,
  signal: AbortSignal,
) => Promise<Result>;

export class Flights<Result, News> {
  readonly #flights = new Map<string, Flight<Result, News>>();

  get size(): number {
    return this.#flights.size;
  }

  /** `joined`: this passenger came on board of somebody else's flight. */
  async board(
    key: string,
    fly: Fly<Result, News>,
    listener: ((news: News) => void) | undefined,
    signal: AbortSignal,
  ): Promise<{ result: Result; joined: boolean } | { failure: unknown; joined: boolean }> {
    signal.throwIfAborted();
    const existing = this.#flights.get(key);
    const flight = existing ?? this.#start(key, fly);
    const joined = existing !== undefined;
    flight.passengers += 1;
    if (listener) {
      flight.listeners.add(listener);
      if (flight.latest !== undefined) listener(flight.latest);
    }
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(signal.reason);
    signal.addEventListener('abort', leave, { once: true });
    try {
      return { result: await Promise.race([flight.landed, left]), joined };
    } catch (failure) {
      signal.throwIfAborted();
      return { failure, joined };
    } finally {
      signal.removeEventListener('abort', leave);
      if (listener) flight.listeners.delete(listener);
      flight.passengers -= 1;
      if (flight.passengers === 0) this.#end(key, flight);
    }
  }

  #start(key: string, fly: Fly<Result, News>): Flight<Result, News> {
    const controller = new AbortController();
    const listeners = new Set<(news: News) => void>();
    const tell = (news: News): void => {
      flight.latest = news;
      for (const listener of listeners) listener(news);
    };
    const landed = Promise.resolve().then(() => fly(tell, controller.signal));
    const flight: Flight<Result, News> = {
      controller,
      landed,
      passengers: 0,
      latest: undefined,
      listeners,
    };
    this.#flights.set(key, flight);
    const forget = (): void => this.#end(key, flight, false);
    landed.then(forget, forget);
    return flight;
  }

  #end(key: string, flight: Flight<Result, News>, abort = true): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
    if (abort) flight.controller.abort(new Error('nobody waits any more'));
  }
}
