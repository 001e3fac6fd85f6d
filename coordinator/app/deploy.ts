// A deploy makes a new revision and makes it current, in one synced batch. In this version runners of the old revision leave
// at once (strategy recreate): idle ones stop, busy ones finish what they do. Waiting requests run on the new revision.
import type { EventOf } from '../core/event.ts';
import type { Turn } from '../core/turn.ts';
import { inactiveFields } from '../../shared/app-spec.ts';
import { newRevisionId, partitionOfApp } from '../../shared/ids.ts';
import { stopRunner } from '../scale/stop-runner.ts';
import { noFailures } from '../scale/failure-delay.ts';
import { newApp } from '../state/app.ts';
import { keys } from '../store/keys.ts';
import type { AppRecord, RevisionRecord } from '../store/records.ts';

export function deploy(turn: Turn, event: EventOf<'deploy'>): void {
  const { spec, imageDigest } = event;
  const name = spec.app;
  const before = turn.state.apps.get(name);
  const revision: RevisionRecord = {
    app: name,
    revision: newRevisionId(turn.now, turn.state.chance),
    number: (before?.revision.number ?? 0) + 1,
    spec,
    ...(imageDigest ? { imageDigest } : {}),
    createdAt: turn.now,
  };
  const record: AppRecord = {
    app: name,
    current: revision.revision,
    createdAt: before?.record.createdAt ?? turn.now,
    updatedAt: turn.now,
  };
  const partition = partitionOfApp(name);
  turn.put(partition, keys.revision(name, revision.revision), revision, 'sync');
  turn.put(partition, keys.app(name), record, 'sync');
  const app = before ?? newApp(record, revision);
  app.record = record;
  app.revision = revision;
  app.failures = noFailures;
  turn.state.apps.set(name, app);
  for (const id of [...app.runners]) {
    const runner = turn.state.runners.get(id);
    if (runner)
      stopRunner(
        turn,
        runner,
        runner.leases.size > 0 ? 'drain' : 'stop',
        'a new revision was deployed',
      );
  }
  turn.record('app.deployed', { app: name, revision: revision.revision, number: revision.number });
  turn.reply('deploy', event.replyTo, {
    app: name,
    revision: revision.revision,
    number: revision.number,
    inactive: inactiveFields(spec),
  });
  turn.touch(name);
}
