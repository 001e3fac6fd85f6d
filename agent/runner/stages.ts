// A start in stages: each names itself and says how it is undone. When one fails, those before it are undone in
// reverse, and the failure names the stage and carries the words of whoever refused.
import { Failure, systemCode } from '../../shared/failure.ts';

/** One step of a start. */
export interface Stage<T> {
  name: string;
  work: () => Promise<T>;
  /** Called for one that failed half-way too, so it must bear what is not there. */
  undo?: () => Promise<void>;
}

export class Stages {
  readonly #undo: { name: string; undo: () => Promise<void> }[] = [];
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Runs one stage. `undo` is called for one that failed half-way too, so it must bear what is not there. */
  async run<T>(name: string, work: () => Promise<T>, undo?: () => Promise<void>): Promise<T> {
    try {
      this.#signal.throwIfAborted();
      if (undo !== undefined) this.#undo.push({ name, undo });
      const result = await work();
      this.#signal.throwIfAborted();
      return result;
    } catch (thrown) {
      throw await this.#giveUp(name, thrown);
    }
  }

  async #giveUp(name: string, thrown: unknown): Promise<unknown> {
    const left = await this.undo();
    return this.#signal.aborted ? this.#signal.reason : refusal(name, thrown, left);
  }

  /** Runs stages that do not need each other at once; all have settled before anything is undone. */
  async together<A, B>(one: Stage<A>, two: Stage<B>): Promise<[A, B]> {
    for (const { name, undo } of [one, two]) if (undo) this.#undo.push({ name, undo });
    let failed = '';
    const noting = <T>({ name, work }: Stage<T>): Promise<T> =>
      work().catch((thrown: unknown) => {
        failed ||= name;
        throw thrown;
      });
    const both = [noting(one), noting(two)] as const;
    try {
      await Promise.allSettled(both);
      const results = await Promise.all(both);
      this.#signal.throwIfAborted();
      return results;
    } catch (thrown) {
      throw await this.#giveUp(failed, thrown);
    }
  }

  /** Undoes all, latest first. @returns the stages that could not be undone */
  async undo(): Promise<string[]> {
    const left: string[] = [];
    for (const { name, undo } of this.#undo.splice(0).reverse()) {
      await undo().catch(() => left.push(name));
    }
    return left;
  }
}

function refusal(stage: string, cause: unknown, left: readonly string[]): Failure {
  if (systemCode(cause) === 'ENOSPC')
    return new Failure('DISK_FULL', `${stage}: no space left`, { cause });
  if (cause instanceof Failure && ['IMAGE_INVALID', 'INPUT_INVALID'].includes(cause.code))
    return cause;
  const words = cause instanceof Error ? cause.message : String(cause);
  const rest = left.length === 0 ? '' : ` (left behind: ${left.join(', ')})`;
  return new Failure('DRIVER_FAILED', `${stage}: ${words}${rest}`, { cause, detail: { stage } });
}
