// How the state of a request reads as one line for a person who waits.
import type { WaitReason } from '../coordinator/core/query.ts';
import type { RequestView } from './client.ts';

/** `step` changes when something else is being waited for, not when a number counts on. */
export function waitLine(
  view: RequestView,
  nodeName: string | undefined,
): { step: string; text: string } {
  switch (view.status) {
    case 'IN_QUEUE': {
      const ahead = view.position ?? 0;
      const queue = ahead > 0 ? `, ${ahead} ahead` : '';
      const again = view.lastFailure ? ` (last try: ${view.lastFailure.message})` : '';
      return {
        step: `queue ${view.waiting?.code ?? ''} ${stepOf(view.waiting)} ${view.dispatches}`,
        text: `in queue${queue}: ${view.waiting?.text ?? 'waits for a runner'}${again}`,
      };
    }
    case 'IN_PROGRESS': {
      const node = nodeName ?? view.nodeId;
      const where = node === undefined ? '' : ` on node ${node}`;
      const runner = view.runnerId === undefined ? '' : `, runner ${view.runnerId}`;
      const attempt = view.dispatches > 1 ? `, attempt ${view.dispatches}` : '';
      return {
        step: `run ${view.runnerId} ${view.dispatches}`,
        text: `running${where}${runner}${attempt}`,
      };
    }
    case 'COMPLETED':
      return { step: 'done', text: 'completed' };
  }
}

/** Words without their numbers: a pull that counts bytes stays one step. */
function stepOf(waiting: Pick<WaitReason, 'text'> | undefined): string {
  return (waiting?.text ?? '').replace(/[0-9.]+( ?[KMGT]i?B| ?ms| ?s| ?%)?/g, '#');
}
