// Draws of the simulation, all from one seed.
import { seededChance, type Chance } from '../../shared/chance.ts';

export class Draw {
  readonly chance: Chance;

  constructor(seed: number) {
    this.chance = seededChance(seed);
  }

  /** A number in [0, limit). */
  below(limit: number): number {
    return this.chance.fraction('sim') * limit;
  }

  between(least: number, most: number): number {
    return least + this.below(most - least);
  }

  happens(probability: number): boolean {
    return this.chance.fraction('sim') < probability;
  }

  one<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.below(items.length))];
  }
}
