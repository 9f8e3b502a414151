import { Inject, Injectable } from '@nestjs/common';
import {
  fullModelName,
  isAmongTools,
  mcpToolsOf,
  schemaProblem,
  SUPPORTED_TOOLS,
} from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { AppError } from '../platform/errors/app-error.js';
import type { ErrorCode } from '../platform/errors/error-catalogue.js';
import { inTime } from '../platform/timing/or-late.js';
import type { ExecuteRequest } from './processes.schemas.js';
import { WorkerDirectory } from './worker-directory.js';

/** What the workers offer is asked of Redis: a request does not wait longer for it. */
const DIRECTORY_TIMEOUT_MS = 1_000;

/**
 * What a request may ask for, beyond its shape, as far as the server that takes it in can tell. Workers of another
 * configuration may refuse more.
 */
@Injectable()
export class RequestChecks {
  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly workers: WorkerDirectory,
  ) {}

  /** @throws AppError `tool_not_allowed`, `model_not_allowed`, `output_schema_invalid`, `validation_failed` */
  async require(request: ExecuteRequest): Promise<void> {
    requireOriginOfFork(request);
    this.requireModel(request);
    await this.requireTools(request);
    await requireSchema(request);
  }

  private requireModel({ model }: ExecuteRequest): void {
    const { CLAUDE_MODELS: models } = this.config;
    if (model === undefined || !models || models.includes(fullModelName(model))) return;
    throw refusal('model_not_allowed', '/model', `This server offers ${models.join(', ')}, not ${model}`);
  }

  private async requireTools(request: ExecuteRequest): Promise<void> {
    const { tools = [], allowedTools = [], disallowedTools = [] } = request;
    const mcpTools = Object.keys(this.config.mcpServers).map(mcpToolsOf);
    requireAmong([...SUPPORTED_TOOLS, ...mcpTools], { tools, allowedTools, disallowedTools });
    if (tools.length + allowedTools.length === 0) return;
    const { CLAUDE_TOOLS: builtIn } = this.config;
    if (builtIn) requireAmong([...builtIn, ...mcpTools], { tools, allowedTools });
    const offered = await this.offeredByWorkers();
    if (offered) requireAmong(offered, { tools });
  }

  /** Null where nobody tells. */
  private async offeredByWorkers(): Promise<string[] | null> {
    const workers = await inTime(this.workers.list(), DIRECTORY_TIMEOUT_MS).catch(() => []);
    return workers.length === 0 ? null : [...new Set(workers.flatMap(({ engine }) => engine.tools))];
  }
}

function requireAmong(offered: readonly string[], fields: Record<string, string[]>): void {
  for (const [field, names] of Object.entries(fields)) {
    const index = names.findIndex((name) => !isAmongTools(offered, name));
    if (index < 0) continue;
    const detail = `There is no tool ${names[index] ?? ''}: this server offers ${offered.join(', ')}`;
    throw refusal('tool_not_allowed', `/${field}/${index}`, detail);
  }
}

async function requireSchema({ outputSchema }: ExecuteRequest): Promise<void> {
  const problem = outputSchema ? await schemaProblem(outputSchema) : null;
  if (problem !== null)
    throw refusal('output_schema_invalid', '/outputSchema', `It is no schema: ${problem}`);
}

function requireOriginOfFork({ sessionId, forkSession }: ExecuteRequest): void {
  if (!forkSession || sessionId !== undefined) return;
  const errors = [{ pointer: '/forkSession', code: 'session_missing', detail: 'needs a sessionId' }];
  throw new AppError('validation_failed', '/forkSession: needs a sessionId', { errors });
}

const refusal = (code: ErrorCode, pointer: string, detail: string) =>
  new AppError(code, `${detail}.`, { errors: [{ pointer, code, detail }] });
