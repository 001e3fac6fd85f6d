// One line per change of state, with milliseconds since the call began: what the platform says of its runners, and what the
// client sees of its request.
import type { Mesh } from './programs.ts';

interface RunnerSeen {
  id: string;
  app: string;
  node?: { name: string };
  reason?: string;
  states: { state: string; at: number }[];
}

export class StateLines {
  readonly #mesh: Mesh;
  readonly #app: string;
  readonly #say: (line: string) => void;
  readonly #told = new Map<string, number>();
  readonly #began: number;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  /** Names of the states that were told, in order. */
  readonly seen: string[] = [];

  constructor(mesh: Mesh, app: string, say: (line: string) => void) {
    this.#mesh = mesh;
    this.#app = app;
    this.#say = say;
    this.#began = Date.now();
  }

  /** What happened before now is not told. */
  async start(): Promise<void> {
    for (const runner of await this.#runners()) this.#told.set(runner.id, runner.states.length);
    this.#timer = setInterval(() => (this.#looking = this.#looking.then(() => this.#look())), 20);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
    await this.#look();
  }

  line(what: string, at = Date.now()): void {
    this.#say(`${String(Math.max(0, at - this.#began)).padStart(8)} ms  ${what}`);
  }

  async #look(): Promise<void> {
    for (const runner of await this.#runners().catch(() => [])) {
      const told = this.#told.get(runner.id) ?? 0;
      for (const { state, at } of runner.states.slice(told)) {
        this.seen.push(state);
        const why =
          state === 'TERMINATED' || state === 'FAILURE_DELAY' ? (runner.reason ?? '') : '';
        this.line(`runner  ${state.padEnd(13)} ${runner.node?.name ?? ''} ${why}`.trimEnd(), at);
      }
      this.#told.set(runner.id, runner.states.length);
    }
  }

  async #runners(): Promise<RunnerSeen[]> {
    const response = await fetch(
      `${this.#mesh.url}/v1/runners?all=true&app=${encodeURIComponent(this.#app)}`,
    );
    const { items } = (await response.json()) as { items: RunnerSeen[] };
    return items;
  }
}
