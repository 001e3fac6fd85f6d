// What the end of an attempt says about its runner (fal-contract §5): a 503, a timeout or a broken connection end it, unless
// the app says otherwise with `x-fal-stop-runner`. Pure.
import type { Outcome } from '../../shared/protocol.ts';

export function runnerVerdict(outcome: Outcome): { stop: true; why: string } | { stop: false } {
  if (outcome.kind === 'failed') {
    if (outcome.code === 'REQUEST_TIMEOUT') return { stop: true, why: 'request_timeout' };
    if (outcome.code === 'RUNNER_CONNECTION' || outcome.code === 'RUNNER_REFUSED')
      return { stop: true, why: 'its connection broke' };
    return { stop: false };
  }
  const word = outcome.headers
    .find(([name]) => name.toLowerCase() === 'x-fal-stop-runner')?.[1]
    .toLowerCase();
  if (word === '1' || word === 'true') return { stop: true, why: 'the app asked for it' };
  if (word === '0' || word === 'false') return { stop: false };
  return outcome.status === 503 ? { stop: true, why: 'the app answered 503' } : { stop: false };
}
