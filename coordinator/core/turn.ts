// One turn of the core: the state, the loaded records, the time, and the step that is being built. Handlers take a turn and
// say what is written and done; nothing else leaves the core.
import type { EventName } from '../../shared/events.ts';
import type { NodeId, RequestId } from '../../shared/ids.ts';
import { partitionOfRequest } from '../../shared/ids.ts';
import type { Message } from '../../shared/protocol.ts';
import { keys } from '../store/keys.ts';
import type { RequestRecord } from '../store/records.ts';
import type { Durability } from '../store/store.ts';
import type { CoreState } from '../state/core-state.ts';
import type { Act, Answers, Step, Write } from './act.ts';
import type { ReplyId } from './event.ts';

export class Turn {
  readonly state: CoreState;
  /** Wall ms, for records. */
  readonly now: number;
  /** Monotonic ms, for every duration. */
  readonly elapsed: number;
  readonly #loaded: ReadonlyMap<string, unknown>;
  readonly #writes: Write[] = [];
  readonly #acts: Act[] = [];

  constructor(
    state: CoreState,
    loaded: ReadonlyMap<string, unknown>,
    now: number,
    elapsed: number,
  ) {
    this.state = state;
    this.#loaded = loaded;
    this.now = now;
    this.elapsed = elapsed;
  }

  /** A request that the event named; undefined when there is none. */
  request(id: RequestId): RequestRecord | undefined {
    return this.#loaded.get(keys.request(id)) as RequestRecord | undefined;
  }

  /** Writes a value; plain data that is never changed afterwards. */
  put(partition: number | undefined, key: string, value: unknown, durability: Durability): void {
    this.#writes.push({ partition, key, value, durability });
  }

  delete(partition: number | undefined, key: string, durability: Durability): void {
    this.#writes.push({ partition, key, value: undefined, durability });
  }

  putRequest(record: RequestRecord, durability: Durability): void {
    this.put(partitionOfRequest(record.id), keys.request(record.id), record, durability);
  }

  reply<C extends keyof Answers>(_command: C, to: ReplyId, answer: Answers[C]): void {
    this.#acts.push({ act: 'reply', to, answer });
  }

  act(act: Act): void {
    this.#acts.push(act);
  }

  /** Sends to a node if it is linked; one that is not says everything again in its next hello. */
  send(nodeId: NodeId, message: Message<'coordinator'>, inputOf?: RequestId): void {
    const link = this.state.nodes.get(nodeId)?.link;
    if (link?.kind !== 'linked') return;
    this.#acts.push({ act: 'send', linkId: link.linkId, message, ...(inputOf ? { inputOf } : {}) });
  }

  record(name: EventName, fields: Record<string, unknown>): void {
    this.#acts.push({ act: 'record', name, fields });
  }

  /** Dispatch and scale of this app are planned before the step ends. */
  touch(app: string): void {
    this.state.touched.add(app);
  }

  end(): Step {
    return { writes: this.#writes, acts: this.#acts, wakeAt: this.state.agenda.next() };
  }
}
