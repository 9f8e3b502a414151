import { WriteSide } from '../../test/support/write-side.js';
import { ProcessStatisticsRepository } from './process-statistics.repository.js';

it('The figures add up whatever a CLI has said of itself', async () => {
  const side = await WriteSide.open();
  await side.submit();
  await side.submit();
  await side.stores.query(`
    UPDATE processes SET cost_usd = 1.7e308,
      usage = '{"inputTokens":1.5,"outputTokens":1e300,"cacheReadInputTokens":3,"cacheCreationInputTokens":4}'`);
  await side.submit();
  const figures = await new ProcessStatisticsRepository(side.prisma).since(null, 60_000);
  await side.close();
  expect(figures).toMatchObject({
    costUsd: 2e12,
    usage: { inputTokens: 4, outputTokens: 2e12, cacheReadInputTokens: 6, cacheCreationInputTokens: 8 },
  });
});
