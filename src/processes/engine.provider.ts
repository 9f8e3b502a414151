import { Logger, type Provider } from '@nestjs/common';
import { type EngineNotice, FallbackEngine } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { DemoApi } from './demo-api.js';

/** What every run says. */
const ROUTINE: ReadonlySet<EngineNotice['kind']> = new Set(['launched', 'launch_traffic', 'first_word']);

const MIB = 1024 * 1024;

const logger = new Logger('ClaudeEngine');

/** Injects the `ClaudeEngine`. */
export const ENGINE = Symbol('ClaudeEngine');

export const engineProvider: Provider = {
  provide: ENGINE,
  inject: [CONFIG, DemoApi],
  useFactory: async (config: ServerConfig, demoApi: DemoApi) =>
    FallbackEngine.open({
      directory: config.engineDirectory,
      anthropic: config.demo ? await demoApi.start() : anthropicOf(config),
      network: {
        httpsProxy: config.HTTPS_PROXY,
        noProxy: config.NO_PROXY,
        extraCaCerts: config.NODE_EXTRA_CA_CERTS,
      },
      sandbox: {
        mode: config.CLAUDE_SANDBOX,
        network: config.CLAUDE_NETWORK,
        bwrapPath: config.CLAUDE_BWRAP_PATH,
        hidden: [process.cwd(), config.DATA_DIR],
      },
      models: config.CLAUDE_MODELS,
      tools: config.CLAUDE_TOOLS,
      mcpServers: config.mcpServers,
      cliPath: config.CLAUDE_CLI_PATH,
      defaultModel: config.CLAUDE_DEFAULT_MODEL,
      apiMaxRetries: config.CLAUDE_API_MAX_RETRIES,
      breaker: { failures: config.CLAUDE_BREAKER_FAILURES },
      supply: {
        slots: config.WORKER_CONCURRENCY,
        spares: config.CLAUDE_SPARES,
        spareMaxAgeMs: config.CLAUDE_SPARE_MAX_AGE_MS,
        sessionIdleMs: config.CLAUDE_SESSION_IDLE_MS,
        memoryBudgetBytes:
          config.CLAUDE_MEMORY_BUDGET_MB === undefined ? undefined : config.CLAUDE_MEMORY_BUDGET_MB * MIB,
      },
      guard: { silenceMs: config.LEASE_FENCE_MS },
      onNotice: ({ kind, ...fields }) => {
        if (ROUTINE.has(kind)) logger.debug({ ...fields }, kind);
        else logger.warn({ ...fields }, kind);
      },
    }),
};

const anthropicOf = ({ ANTHROPIC_API_KEY: apiKey = '', ANTHROPIC_BASE_URL: baseUrl }: ServerConfig) => ({
  apiKey,
  baseUrl,
});
