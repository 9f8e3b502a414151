import { z } from 'zod';
import { SUPPORTED_TOOLS } from '../../../libs/claude-engine/index.js';

const milliseconds = (fallback: number, max: number) =>
  z.coerce.number('must be a number of milliseconds').int('must be whole').min(1).max(max).default(fallback);

const count = (fallback: number, max: number) =>
  z.coerce.number('must be a number').int('must be whole').min(1).max(max).default(fallback);

/** 0 is never. */
const days = (fallback: number) =>
  z.coerce.number('must be a number of days').int('must be whole').min(0).max(36_500).default(fallback);

/** 0 is none. */
const countOrNone = (fallback: number, max: number) =>
  z.coerce.number('must be a number').int('must be whole').min(0).max(max).default(fallback);

const flag = (fallback: boolean) =>
  z
    .enum(['true', 'false'], 'must be true or false')
    .default(fallback ? 'true' : 'false')
    .transform((text) => text === 'true');

const url = (protocols: string[]) =>
  z
    .string()
    .refine(
      (text) => URL.canParse(text) && protocols.includes(new URL(text).protocol),
      `must be a URL that begins with ${protocols.map((p) => `${p}//`).join(' or ')}`,
    );

/** Separated by commas. */
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean),
);

const HOUR_MS = 60 * 60 * 1000;
const DAY_MS = 24 * HOUR_MS;

/** Every variable that the server reads. `.env.example` lists the same names, with unit and default. */
export const EnvironmentSchema = z.object({
  NODE_ENV: z
    .enum(['development', 'production', 'test'], 'must be development, production or test')
    .default('development'),
  ROLE: z.enum(['all', 'api', 'worker'], 'must be all, api or worker').default('all'),
  HOST: z.string().default('127.0.0.1'),
  PORT: z.coerce.number('must be a port number').int('must be whole').min(0).max(65_535).default(3000),
  PUBLIC_URL: url(['http:', 'https:']).optional(),
  TRUST_PROXY: list
    .pipe(
      z.array(
        z.union(
          [z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()],
          'must be addresses or CIDR ranges, separated by commas',
        ),
      ),
    )
    .default([]),
  REQUEST_TIMEOUT_MS: milliseconds(60_000, HOUR_MS),
  LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'must be a level of pino')
    .default('info'),

  DATA_DIR: z.string().default('.data'),
  DATABASE_URL: url(['postgresql:', 'postgres:']).optional(),
  REDIS_URL: url(['redis:', 'rediss:']).optional(),
  MIGRATE_ON_START: flag(true),
  START_PATIENCE_MS: milliseconds(30_000, HOUR_MS),

  ADMIN_EMAIL: z.email('must be an e-mail address').default('admin@claude-runner.local'),
  ADMIN_PASSWORD: z.string().min(8, 'must have 8 characters or more').max(128).optional(),

  ANTHROPIC_API_KEY: z.string().optional(),
  ANTHROPIC_BASE_URL: url(['http:', 'https:']).optional(),
  HTTPS_PROXY: url(['http:', 'https:']).optional(),
  NO_PROXY: z.string().optional(),
  NODE_EXTRA_CA_CERTS: z.string().optional(),

  CLAUDE_CLI_PATH: z.string().optional(),
  CLAUDE_SANDBOX: z.enum(['auto', 'required', 'off'], 'must be auto, required or off').default('auto'),
  CLAUDE_NETWORK: z.enum(['none', 'host'], 'must be none or host').default('none'),
  CLAUDE_BWRAP_PATH: z.string().optional(),
  CLAUDE_DEFAULT_MODEL: z.string().optional(),
  CLAUDE_MODELS: list.pipe(z.array(z.string())).optional(),
  CLAUDE_TOOLS: list
    .pipe(z.array(z.enum(SUPPORTED_TOOLS, `must be of ${SUPPORTED_TOOLS.join(', ')}, separated by commas`)))
    .optional(),
  CLAUDE_MCP_CONFIG: z.string().optional(),
  CLAUDE_API_MAX_RETRIES: countOrNone(10, 100),
  CLAUDE_BREAKER_FAILURES: count(10, 1_000_000),
  CLAUDE_SPARES: countOrNone(2, 256),
  CLAUDE_SPARE_MAX_AGE_MS: milliseconds(10 * 60 * 1000, DAY_MS),
  CLAUDE_SESSION_IDLE_MS: countOrNone(60_000, DAY_MS),
  CLAUDE_MEMORY_BUDGET_MB: z.coerce
    .number('must be a number of megabytes')
    .int('must be whole')
    .min(1)
    .optional(),
  CLAUDE_TIMEOUT_MS: milliseconds(10 * 60 * 1000, DAY_MS),
  PERMISSION_TIMEOUT_MS: milliseconds(10 * 60 * 1000, DAY_MS),
  EXECUTE_MAX_WAIT_MS: milliseconds(55_000, DAY_MS),
  WORKSPACE_QUOTA_MB: count(1024, 1024 * 1024),
  WORKSPACE_MAX_FILE_MB: count(100, 1024 * 1024),
  WORKER_CONCURRENCY: count(2, 256),
  SHUTDOWN_GRACE_MS: milliseconds(30_000, DAY_MS),

  QUEUE_MAX_PENDING: count(10_000, 1_000_000),
  QUEUE_MAX_PENDING_PER_USER: count(1_000, 1_000_000),
  EVENT_RETENTION_DAYS: days(30),
  PROCESS_RETENTION_DAYS: days(90),
  SESSION_RETENTION_DAYS: days(90),
  RETENTION_INTERVAL_MS: milliseconds(10 * 60 * 1000, DAY_MS),

  LEASE_TTL_MS: milliseconds(15_000, HOUR_MS),
  LEASE_HEARTBEAT_MS: milliseconds(5_000, HOUR_MS),
  LEASE_FENCE_MS: milliseconds(10_000, HOUR_MS),
  RECONCILER_INTERVAL_MS: milliseconds(2_000, HOUR_MS),
  REDIS_ALLOW_EVICTION: flag(false),
});

/** These may also be given as the name of a file that holds the value: `DATABASE_URL_FILE=/run/secrets/database-url`. */
export const SECRET_VARIABLES = ['DATABASE_URL', 'REDIS_URL', 'ADMIN_PASSWORD', 'ANTHROPIC_API_KEY'] as const;

export type Environment = z.output<typeof EnvironmentSchema>;
