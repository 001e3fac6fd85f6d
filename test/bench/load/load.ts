// The load generator, seen from the bench: a process of its own that lives through all rounds, so that it is as warm
// for one side as for the other and its work is nobody's.
import { join } from 'node:path';
import type { Stage } from '../stage.ts';
import type { LoadAnswer, LoadJob, LoadResult } from './job.ts';

export class Load {
  readonly #send: (job: LoadJob) => Promise<LoadResult>;

  constructor(stage: Stage) {
    const program = stage.start('load', process.execPath, [join(import.meta.dirname, 'child.ts')], {
      ipc: true,
    });
    this.#send = (job) =>
      new Promise((resolve, reject) => {
        const settle = (act: () => void): void => {
          program.child.off('message', onMessage);
          stage.signal.removeEventListener('abort', onAbort);
          act();
        };
        const onAbort = (): void => settle(() => reject(stage.signal.reason));
        const onMessage = (answer: LoadAnswer): void =>
          settle(() =>
            answer.kind === 'result' ? resolve(answer.result) : reject(new Error(answer.message)),
          );
        stage.signal.throwIfAborted();
        stage.signal.addEventListener('abort', onAbort);
        program.child.on('message', onMessage);
        void program.ended.then(() =>
          settle(() => reject(new Error(`the load generator ended: ${program.tail()}`))),
        );
        program.child.send(job);
      });
  }

  /** Runs one job to its end. One at a time. @throws Error at the first wrong answer */
  run(job: LoadJob): Promise<LoadResult> {
    return this.#send(job);
  }
}
