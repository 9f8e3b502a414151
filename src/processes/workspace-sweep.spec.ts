import { Logger } from '@nestjs/common';
import type { ClaudeEngine } from '../../libs/claude-engine/index.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import type { ProcessRetentionRepository } from './process-retention.repository.js';
import type { SessionsEvents } from '../sessions/sessions.events.js';
import { WorkspaceSweep } from './workspace-sweep.js';

it('A workspace that cannot be removed does not keep the others', async () => {
  Logger.overrideLogger(false);
  const changedAt = new Date(0);
  let onRemoved: (key: string) => void;
  const removed = new Promise<string>((resolve) => (onRemoved = resolve));
  const engine = {
    listWorkspaces: () => Promise.resolve(['stuck', 'other'].map((key) => ({ key, changedAt }))),
    removeWorkspace: async (key: string) => {
      await Promise.resolve();
      if (key === 'stuck') throw new Error('ENAMETOOLONG');
      onRemoved(key);
    },
  } as unknown as ClaudeEngine;
  const retention = {
    findUnusedWorkspaces: (keys: string[]) => Promise.resolve(keys),
  } as unknown as ProcessRetentionRepository;
  const sessions = { onRemoved: () => Promise.resolve() } as unknown as SessionsEvents;
  const config = requireStores(
    readConfig({
      DATABASE_URL: 'postgresql://nowhere',
      REDIS_URL: 'redis://nowhere',
      RETENTION_INTERVAL_MS: '100',
    }),
  );
  const sweep = new WorkspaceSweep(config, engine, retention, sessions);
  sweep.onApplicationBootstrap();
  expect(await removed).toBe('other');
  sweep.onApplicationShutdown();
});
