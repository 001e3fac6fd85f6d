// The seam to what runs a runner: a container (runc-driver.ts) or a bare process (process-driver.ts); in memory for
// tests (memory-driver.ts). All pass test/conformance/driver.ts.
// A3: a signal goes only to a process proven ours (boot id, pid, start time, cgroup).
import type { RunnerId } from '../../shared/ids.ts';
import type { Image } from '../image/image.ts';

/** A GPU handed to a runner, whole, by UUID. */
export interface GrantedGpu {
  uuid: string;
  /** N of `/dev/nvidiaN`. */
  minor: number;
  /** Index as nvidia-smi counts, for people. */
  index: number;
}

export interface FileMount {
  source: string;
  /** Absolute path inside the runner. */
  target: string;
  readOnly: boolean;
}

/** What the runner is made from: an unpacked image, or a folder and a command. */
export type RunnerSource =
  | {
      kind: 'image';
      image: Image;
      /** Unpacked layers, topmost first. */
      layerFolders: readonly string[];
      /** Overrides the image's own entrypoint and arguments. */
      command?: readonly string[];
    }
  | { kind: 'process'; folder: string; command: readonly string[] };

export interface RunnerSpec {
  id: RunnerId;
  /** `owner/alias` */
  app: string;
  source: RunnerSource;
  /** The port that the app listens on. A process driver may choose another and pass it in `PORT`. */
  port: number;
  /** Environment of the app file and of the platform; wins over the image's. */
  env: Readonly<Record<string, string>>;
  gpus: readonly GrantedGpu[];
  /** CPU cores; absent: no limit. */
  cpu?: number;
  memoryBytes?: number;
  files: readonly FileMount[];
}

export type Exit =
  | { kind: 'code'; code: number }
  | { kind: 'signal'; signal: string }
  /** Killed because it used more memory than it was given. */
  | { kind: 'oom' }
  /** It is gone and nobody saw how. */
  | { kind: 'unknown' };

/** A runner that was started. Owns its process, mounts, network and log file until `remove`. */
export interface Running {
  /** What the agent dials. */
  readonly address: { host: string; port: number };
  readonly pid: number;
  /** Settles once, when the main process has ended. Never rejects. */
  readonly exited: Promise<Exit>;
  /**
   * SIGTERM: to the main process of a container (as images expect it), to the whole group of a bare process.
   * SIGKILL: to everything that belongs to the runner. Fine when it is gone.
   */
  signal(name: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Output as it came (stdout and stderr), from `offset` bytes since start; the oldest bytes may be gone. */
  readLog(offset: number, maxBytes: number): Promise<LogSlice>;
  /** Kills what is left and frees everything; the log goes too. Safe to call twice. */
  remove(): Promise<void>;
}

export interface LogSlice {
  /** Where `bytes` begin; more than asked for when older output has been dropped. */
  offset: number;
  bytes: Uint8Array;
  /** Where the log ends now. */
  end: number;
}

export interface Driver {
  readonly name: 'runc' | 'process' | 'memory';
  /** Why this driver cannot work here, for people; undefined when it can. */
  unavailable(): Promise<string | undefined>;
  /** @throws Failure DRIVER_UNAVAILABLE, DRIVER_FAILED, DISK_FULL; whatever was made is undone first */
  start(spec: RunnerSpec, signal: AbortSignal): Promise<Running>;
  /** Ends and frees what earlier lives of this agent left behind, and nothing else (A3). */
  sweep(): Promise<void>;
}
