// A driver for tests of what stands on the seam: the "runner" is an HTTP server in this process. No process, no log
// file, no isolation; `crash` and `print` stand in for what a process does by itself.
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import type { Driver, Exit, LogSlice, Running, RunnerSpec } from './driver.ts';

/** What the app of a memory runner can do to its runner. */
export interface MemoryApp {
  listener: RequestListener;
  /** On SIGTERM: the exit, or undefined to go on (as a process that ignores it). A signal's own end when absent. */
  onTerminate?: () => Exit | undefined;
}

export class MemoryDriver implements Driver {
  readonly name = 'memory';
  readonly runners = new Map<string, MemoryRunner>();
  readonly #app: (spec: RunnerSpec) => RequestListener | MemoryApp;

  /** `app` is called for each start; what it throws is the failure of that start. */
  constructor(app: (spec: RunnerSpec) => RequestListener | MemoryApp) {
    this.#app = app;
  }

  async unavailable(): Promise<undefined> {
    return undefined;
  }

  async start(spec: RunnerSpec, signal: AbortSignal): Promise<Running> {
    signal.throwIfAborted();
    if (this.runners.has(spec.id))
      throw new Failure('DRIVER_FAILED', 'there is such a runner already');
    const app = this.#make(spec);
    const server = createServer(app.listener).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const runner = new MemoryRunner(app, server, () => this.runners.delete(spec.id));
    this.runners.set(spec.id, runner);
    if (signal.aborted) {
      await runner.remove();
      throw signal.reason;
    }
    return runner;
  }

  async sweep(): Promise<void> {
    for (const runner of this.runners.values()) await runner.remove();
  }

  #make(spec: RunnerSpec): MemoryApp {
    try {
      const app = this.#app(spec);
      return typeof app === 'function' ? { listener: app } : app;
    } catch (cause) {
      if (cause instanceof Failure) throw cause;
      const words = cause instanceof Error ? cause.message : String(cause);
      throw new Failure('DRIVER_FAILED', `start: ${words}`, { cause });
    }
  }
}

export class MemoryRunner implements Running {
  readonly address: { host: string; port: number };
  readonly pid = process.pid;
  readonly exited: Promise<Exit>;
  readonly #app: MemoryApp;
  readonly #server: Server;
  readonly #forget: () => void;
  #settle: (exit: Exit) => void = () => undefined;
  #log = Buffer.alloc(0);
  #dropped = 0;

  constructor(app: MemoryApp, server: Server, forget: () => void) {
    this.#app = app;
    this.#server = server;
    this.#forget = forget;
    this.exited = new Promise((resolve) => (this.#settle = resolve));
    this.address = { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  }

  /** Adds to its output. */
  print(text: string): void {
    this.#log = Buffer.concat([this.#log, Buffer.from(text)]);
    const over = Math.max(0, this.#log.byteLength - limits.logBytes);
    this.#log = this.#log.subarray(over);
    this.#dropped += over;
  }

  /** Ends it as if its process had ended so. */
  crash(exit: Exit): void {
    this.#server.close();
    this.#server.closeAllConnections();
    this.#settle(exit);
  }

  async signal(name: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const asked = name === 'SIGTERM' && this.#app.onTerminate !== undefined;
    const exit = asked ? this.#app.onTerminate?.() : ({ kind: 'signal', signal: name } as const);
    if (exit !== undefined) this.crash(exit);
  }

  async readLog(offset: number, maxBytes: number): Promise<LogSlice> {
    const end = this.#dropped + this.#log.byteLength;
    const from = Math.min(Math.max(offset, this.#dropped), end);
    const at = from - this.#dropped;
    return { offset: from, bytes: this.#log.subarray(at, at + maxBytes), end };
  }

  async remove(): Promise<void> {
    this.crash({ kind: 'signal', signal: 'SIGKILL' });
    this.#forget();
  }
}
