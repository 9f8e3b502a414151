import { setTimeout as sleep } from 'node:timers/promises';
import type { Callers } from './callers.js';
import type { Ledger } from './ledger.js';

const AGAIN_MS = 250;

/** Cancels a process, and asks again until it is told what became of that. */
export async function cancel(
  processId: string,
  api: number,
  { callers, ledger, giveUp }: { callers: Callers; ledger: Ledger; giveUp: AbortSignal },
): Promise<void> {
  const record: Ledger['cancels'][number] = { processId, askedAt: Date.now(), answer: null };
  ledger.cancels.push(record);
  for (let attempt = api; !giveUp.aborted; attempt += 1) {
    const { client, name } = callers.at(attempt);
    const answer = await client.cancel(processId).catch(() => null);
    if (answer?.status === 200 || answer?.status === 202) {
      const { status, cancelRequestedAt } = answer.body;
      record.answer = { httpStatus: answer.status, status, cancelRequestedAt, at: Date.now() };
      ledger.saw(answer.body, `cancel at ${name}`);
      return;
    }
    if (answer && answer.status !== 503)
      ledger.problems.push(
        `The cancel of ${processId} at ${name} was answered ${answer.status}: ${JSON.stringify(answer.body)}`,
      );
    await sleep(AGAIN_MS, undefined, { signal: giveUp }).catch(() => undefined);
  }
}
