// Who uses what: a count of holders by key, as disposable pins (C4). Pins live in memory only: after a restart whoever
// re-adopts a runner takes them again before anything is evicted.

/** Keeps something from being removed until disposed of; disposing twice is fine. */
export interface Pin extends Disposable {
  release(): void;
}

export class Pins<Key> {
  readonly #holders = new Map<Key, number>();

  pin(key: Key): Pin {
    this.#holders.set(key, (this.#holders.get(key) ?? 0) + 1);
    return pinOf(() => {
      const left = (this.#holders.get(key) ?? 1) - 1;
      if (left === 0) this.#holders.delete(key);
      else this.#holders.set(key, left);
    });
  }

  has(key: Key): boolean {
    return this.#holders.has(key);
  }
}

/** Several pins as one. */
export function joinPins(pins: Iterable<Pin>): Pin {
  const held = [...pins];
  return pinOf(() => held.forEach((pin) => pin.release()));
}

function pinOf(release: () => void): Pin {
  let isHeld = true;
  const once = (): void => {
    if (isHeld) release();
    isHeld = false;
  };
  return { release: once, [Symbol.dispose]: once };
}
