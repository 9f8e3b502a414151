import { z } from 'zod';

const milliseconds = (fallback: number, max: number) =>
  z.coerce.number('must be a number of milliseconds').int('must be whole').min(1).max(max).default(fallback);

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

const DAY_MS = 24 * 60 * 60 * 1000;

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
  LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'must be a level of pino')
    .default('info'),

  DATA_DIR: z.string().default('.data'),
  DATABASE_URL: url(['postgresql:', 'postgres:']).optional(),
  REDIS_URL: url(['redis:', 'rediss:']).optional(),
  MIGRATE_ON_START: flag(true),

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
  CLAUDE_API_MAX_RETRIES: z.coerce
    .number('must be a number')
    .int('must be whole')
    .min(0)
    .max(100)
    .default(10),
  CLAUDE_TIMEOUT_MS: milliseconds(10 * 60 * 1000, DAY_MS),
  EXECUTE_MAX_WAIT_MS: milliseconds(55_000, DAY_MS),
  WORKER_CONCURRENCY: z.coerce.number('must be a number').int('must be whole').min(1).max(256).default(2),
  SHUTDOWN_GRACE_MS: milliseconds(30_000, DAY_MS),
});

/** These may also be given as the name of a file that holds the value: `DATABASE_URL_FILE=/run/secrets/database-url`. */
export const SECRET_VARIABLES = ['DATABASE_URL', 'REDIS_URL', 'ADMIN_PASSWORD', 'ANTHROPIC_API_KEY'] as const;

export type Environment = z.output<typeof EnvironmentSchema>;
