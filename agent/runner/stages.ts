// A start in stages: each names itself and says how it is undone. When one fails, those before it are undone in
// reverse, and the failure names the stage and carries the words of whoever refused.
import { Failure, systemCode } from '../../shared/failure.ts';

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
      const left = await this.undo();
      if (this.#signal.aborted) throw this.#signal.reason;
      throw refusal(name, thrown, left);
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
