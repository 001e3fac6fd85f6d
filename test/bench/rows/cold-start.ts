// Cold start of an image that the node has in its cache: from a direct call with no runner alive to its answer, beside
// `runc run` of the same files until the same page comes.
import { request } from 'undici';
import { startPlatform, type Platform } from '../platform.ts';
import { preparePlainRunc } from '../rivals/plain-runc.ts';
import type { Contest, Row, RowParts, Sample } from '../row.ts';
import { describePhases, phasesOf, stateChanges, type StateChange } from '../runner-phases.ts';
import { waitFor } from '../stage.ts';
import { makeStaticImage, PAGE, serverArgs } from '../static-image.ts';
import { skipWithoutRoot } from '../../tools/tools.ts';
import { POLL_MS } from '../until-answered.ts';

const APP = 'bench/static';
const GONE_WITHIN_MS = 30_000;
const ANSWER_WITHIN_MS = 30_000;
const FIGURE = 'cold start';

async function open(parts: RowParts): Promise<Contest> {
  const { stage, depth } = parts;
  const [image, platform] = await Promise.all([makeStaticImage(parts), startPlatform(parts)]);
  const startPlain = await preparePlainRunc(parts, image.rootfs, PAGE);
  await platform.deploy({
    app: APP,
    image: image.ref,
    command: serverArgs(8000),
    port: 8000,
    health: { path: '/index.html' },
    machine: { gpus: 0, cpu: 1, memory: '64MiB' },
    // Goes as soon as nobody needs it, so that each round finds none.
    scaling: { min_concurrency: 0, max_concurrency: 1, keep_alive: 0 },
    timeouts: { startup_timeout: 60, request_timeout: 60, termination_grace_period_seconds: 0 },
  });
  const starts: { changes: readonly StateChange[]; phases: Map<string, number> }[] = [];
  const startOurs = async (): Promise<Sample> => {
    const known = stateChanges(platform.coordinator.said()).length;
    const sentAtMs = Date.now();
    const sentMs = performance.now();
    const { statusCode, body } = await request(`${platform.url}/run/${APP}/index.html`, {
      headersTimeout: ANSWER_WITHIN_MS,
      signal: stage.signal,
    });
    const text = await body.text();
    const tookMs = performance.now() - sentMs;
    const answeredAtMs = Date.now();
    if (statusCode !== 200 || text !== PAGE)
      throw new Error(`the call was answered ${statusCode} ${text.slice(0, 300)}`);
    const changes = await untilGone(platform, known, stage.signal);
    starts.push({ changes, phases: phasesOf(changes, sentAtMs, answeredAtMs) });
    return { [FIGURE]: tookMs };
  };
  // The first start pulls the image; a second one settles what is made once per node.
  for (let start = 0; start < (depth === 'smoke' ? 1 : 2); start += 1) await startOurs();
  await startPlain(0);
  const warm = starts.splice(0);
  return {
    figures: [{ name: FIGURE, unit: 'ms', better: 'lower' }],
    ours: startOurs,
    rival: async (round) => ({ [FIGURE]: await startPlain(round) }),
    controls: async () => {
      const pulled = starts.filter(({ changes }) => hasPulled(changes)).length;
      const fresh = new Set([...warm, ...starts].map(({ changes }) => changes[0]?.runner)).size;
      return [
        {
          name: 'the image came from the cache',
          expected: 'no DOCKER_PULL, but one before the rounds',
          observed: `${pulled}, and ${warm.filter(({ changes }) => hasPulled(changes)).length}`,
          passed: pulled === 0 && warm.some(({ changes }) => hasPulled(changes)),
        },
        {
          name: 'each call found no runner and got a new one',
          expected: `${warm.length + starts.length} runners`,
          observed: String(fresh),
          passed: fresh === warm.length + starts.length,
        },
      ];
    },
    notes: () => [
      `our phases (medians; the log counts whole ms): ${describePhases(starts.map((s) => s.phases))}`,
    ],
  };
}

const hasPulled = (changes: readonly StateChange[]): boolean =>
  changes.some(({ state }) => state === 'DOCKER_PULL');

/** What the coordinator's log says of this start, once its runner has gone. */
function untilGone(
  platform: Platform,
  known: number,
  signal: AbortSignal,
): Promise<readonly StateChange[]> {
  return waitFor('the runner to go', GONE_WITHIN_MS, signal, () => {
    const changes = stateChanges(platform.coordinator.said()).slice(known);
    return changes.at(-1)?.state === 'TERMINATED' ? changes : undefined;
  });
}

export const coldStart: Row = {
  name: 'cold-start',
  measures: 'a direct call with no runner alive, its image in the node cache, to the first answer',
  rival: '`runc run` of the same files as a ready bundle, on the host network',
  clock: `ours: from the call sent to its whole answer; rival: from starting runc to the whole answer, asked every ${POLL_MS} ms`,
  load: () => 'one start a round; busybox httpd and one page, one layer of 2 MB',
  rounds: { full: 15, quick: 5, smoke: 1 },
  whyNot: async (tools) =>
    tools.lacks('runc', 'conmon', 'ip', 'nft', 'umoci', 'skopeo', 'docker-registry', 'busybox') ||
    (await skipWithoutRoot()),
  open,
};
