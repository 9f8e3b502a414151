import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { z } from 'zod';
import { fullModelName, type McpServers } from '../../../libs/claude-engine/index.js';
import { type Environment, EnvironmentSchema, SECRET_VARIABLES } from './environment.schemas.js';
import { readMcpConfig } from './mcp-config.js';

/** The environment is not one that the server can start with. Each line of the message names a variable. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  constructor(problems: string[]) {
    super(problems.join('\n'));
  }
}

export type Config = Readonly<
  Environment & {
    /** No Anthropic credentials: the real CLI runs against the scripted Messages API. */
    demo: boolean;
    /** This server serves the REST API and the sockets. */
    servesApi: boolean;
    /** This server takes processes from the queue and runs them. */
    runsProcesses: boolean;
    /** Where the engine keeps what it runs, the workspaces of sessions among it. */
    engineDirectory: string;
    /** From the file that CLAUDE_MCP_CONFIG names; holds secrets. */
    mcpServers: McpServers;
  }
>;

/** The configuration that a server needs to stand on its own: its stores are known. */
export type ServerConfig = Config & { readonly DATABASE_URL: string; readonly REDIS_URL: string };

/** Injects the `ServerConfig`. */
export const CONFIG = Symbol('Config');

/** What this process was started with; `.env` fills in what is not set. */
export function environmentOfProcess(): NodeJS.ProcessEnv {
  if (existsSync('.env')) process.loadEnvFile('.env');
  return process.env;
}

/**
 * Parses the environment. Empty variables count as unset; `DATA_DIR` becomes absolute.
 * @throws ConfigError
 */
export function readConfig(environment: NodeJS.ProcessEnv): Config {
  const problems: string[] = [];
  const given = withSecretFiles(environment, problems);
  const parsed = EnvironmentSchema.safeParse(given);
  if (!parsed.success) problems.push(...parsed.error.issues.map(describe));
  if (!parsed.success || problems.length > 0) throw new ConfigError(problems);

  const env = parsed.data;
  const runsProcesses = env.ROLE !== 'api';
  const demo = runsProcesses && env.ANTHROPIC_API_KEY === undefined;
  if (demo && env.ANTHROPIC_BASE_URL !== undefined)
    problems.push('ANTHROPIC_API_KEY: must be set where ANTHROPIC_BASE_URL is');
  problems.push(...unfitLease(env), ...unofferedDefault(env));
  const mcp = readMcpConfig(env.CLAUDE_MCP_CONFIG);
  problems.push(...mcp.problems.map((problem) => `CLAUDE_MCP_CONFIG: ${problem}`));
  if (env.NODE_ENV === 'production') problems.push(...unfitForProduction(env, demo));
  if (problems.length > 0) throw new ConfigError(problems);
  const DATA_DIR = resolve(env.DATA_DIR);
  return {
    ...env,
    DATA_DIR,
    engineDirectory: join(DATA_DIR, 'engine'),
    demo,
    mcpServers: mcp.servers,
    servesApi: env.ROLE !== 'worker',
    runsProcesses,
  };
}

/** @throws ConfigError when the configuration leaves the stores to be embedded, which only `npm start` does. */
export function requireStores(config: Config): ServerConfig {
  const { DATABASE_URL, REDIS_URL } = config;
  if (DATABASE_URL !== undefined && REDIS_URL !== undefined) return { ...config, DATABASE_URL, REDIS_URL };
  throw new ConfigError(
    [DATABASE_URL === undefined && 'DATABASE_URL', REDIS_URL === undefined && 'REDIS_URL']
      .filter((name) => name !== false)
      .map((name) => `${name}: must be set (only npm start brings stores of its own)`),
  );
}

/** A worker must notice that its lease is not renewed, and have killed its CLIs, before anybody takes it for lost. */
function unfitLease({ LEASE_TTL_MS, LEASE_HEARTBEAT_MS, LEASE_FENCE_MS }: Environment): string[] {
  const problems: string[] = [];
  if (LEASE_HEARTBEAT_MS >= LEASE_FENCE_MS)
    problems.push('LEASE_HEARTBEAT_MS: must be less than LEASE_FENCE_MS');
  if (LEASE_FENCE_MS >= LEASE_TTL_MS) problems.push('LEASE_FENCE_MS: must be less than LEASE_TTL_MS');
  return problems;
}

function unofferedDefault({ CLAUDE_MODELS: models, CLAUDE_DEFAULT_MODEL: model }: Environment): string[] {
  const isOffered = model === undefined || !models || models.includes(fullModelName(model));
  return isOffered ? [] : ['CLAUDE_DEFAULT_MODEL: must be one of CLAUDE_MODELS'];
}

function unfitForProduction(env: Environment, demo: boolean): string[] {
  const problems: string[] = [];
  if (demo) problems.push('ANTHROPIC_API_KEY: must be set; NODE_ENV=production refuses demo mode');
  for (const name of ['DATABASE_URL', 'REDIS_URL'] as const) {
    if (env[name] === undefined)
      problems.push(`${name}: must be set; NODE_ENV=production refuses embedded stores`);
  }
  return problems;
}

function withSecretFiles(environment: NodeJS.ProcessEnv, problems: string[]): NodeJS.ProcessEnv {
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ''));
  for (const name of SECRET_VARIABLES) {
    const file = given[`${name}_FILE`];
    if (file === undefined) continue;
    if (given[name] !== undefined) {
      problems.push(`${name}_FILE: must not be set together with ${name}`);
      continue;
    }
    try {
      given[name] = readFileSync(file, 'utf8').trim();
    } catch (error) {
      problems.push(`${name}_FILE: cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`);
    }
  }
  return given;
}

// The value is left out on purpose: it may be a secret.
const describe = ({ path, message }: z.core.$ZodIssue) => `${String(path[0])}: ${message}`;
