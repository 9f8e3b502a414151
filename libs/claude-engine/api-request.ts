/**
 * What of the Messages API a CLI needs, and code beside it may therefore ask. The rest is refused: above all what would have
 * Anthropic's servers call an address (`mcp_servers`, server tools, a picture by its URL), which is a way out of the sandbox.
 * Whatever nobody knows here is refused as well.
 */

/** Names of fields, tools, blocks and betas are those of the API. Versions of betas and of server tools come and go. */
const FIELDS: ReadonlySet<string> = new Set([
  'cache_control',
  'compaction',
  'context_hint',
  'context_management',
  'diagnostics',
  'fallback_credit_token',
  'fallbacks',
  'inference_geo',
  'max_tokens',
  'messages',
  'metadata',
  'model',
  'output_config',
  'output_format',
  'program_use_case_id',
  'request_tags',
  'service_tier',
  'speed',
  'stop_sequences',
  'stream',
  'system',
  'temperature',
  'thinking',
  'thread',
  'tool_choice',
  'tools',
  'top_k',
  'top_p',
]);
/** It looks among the tools of the request. */
const TOOL_SEARCH = /^tool_search_tool_(bm25|regex)(_\d{8})?$/;
const BLOCKS: ReadonlySet<string> = new Set([
  'compaction',
  'document',
  'fallback',
  'image',
  'redacted_thinking',
  'search_result',
  'server_tool_use',
  'text',
  'thinking',
  'tool_addition',
  'tool_reference',
  'tool_removal',
  'tool_result',
  'tool_search_tool_result',
  'tool_use',
]);
const SOURCES: ReadonlySet<string> = new Set(['base64', 'content', 'text']);
const BETAS = new RegExp(
  `^(${[
    'advanced-tool-use',
    'cache-diagnosis',
    'cache-keepalive',
    'claude-code',
    'claude-code-side-query',
    'compact',
    'context-1m',
    'context-hint',
    'context-management',
    'dangerous-tool-use',
    'effort',
    'extended-cache-ttl',
    'fallback-credit',
    'fine-grained-tool-streaming',
    'inline-tools',
    'interleaved-thinking',
    'message-threads',
    'mid-conversation-[a-z-]+',
    'model-context-window-exceeded',
    'output-128k',
    'per-turn-control',
    'program-use-case-ids',
    'prompt-caching(-[a-z]+)?',
    'redact-thinking',
    'request-tags',
    'resumption',
    'server-side-fallback',
    'structured-outputs',
    'task-budgets',
    'thinking-[a-z-]+',
    'timing',
    'token-counting',
    'token-efficient-tools',
    'tool-examples',
    'tool-search-tool',
  ].join('|')})-\\d{4}-?\\d{2}-?\\d{2}$`,
);
const HEADERS =
  /^(accept|anthropic-(beta|version|dangerous-direct-browser-access)|content-type|user-agent|x-app|x-client-request-id|x-claude-code-session-id|x-stainless-[a-z-]+)$/;

const MAX_DEPTH = 8;

/** A request's body as it may be passed on, or why it may not: `reason` names what is wrong, for its sender to read. */
export type ReadRequest =
  { kind: 'allowed'; body: Buffer; models: string[] } | { kind: 'refused'; reason: string };

/**
 * Reads a body. What is passed on is written anew: of a name that is there twice, the API might read the one that was not
 * looked at here.
 */
export function readApiRequest(bytes: Buffer): ReadRequest {
  try {
    const body: unknown = JSON.parse(bytes.toString());
    if (!isRecord(body)) return { kind: 'refused', reason: 'The body is no JSON object.' };
    const reason = objectionTo(body);
    if (reason !== null) return { kind: 'refused', reason: `This server does not pass on ${reason}.` };
    return { kind: 'allowed', body: Buffer.from(JSON.stringify(body)), models: modelsIn(body) };
  } catch {
    return { kind: 'refused', reason: 'The body is no JSON, or goes too deep.' };
  }
}

/** Headers that a CLI sends, without those of the connection, and of the betas those that it needs. */
export function apiRequestHeaders(headers: Readonly<Record<string, unknown>>): Record<string, string> {
  const known = Object.entries(headers).filter(
    (header): header is [string, string] => typeof header[1] === 'string' && HEADERS.test(header[0]),
  );
  const { 'anthropic-beta': betas, ...others } = Object.fromEntries(known);
  const needed = (betas ?? '')
    .split(',')
    .map((beta) => beta.trim())
    .filter((beta) => BETAS.test(beta));
  return needed.length === 0 ? others : { ...others, 'anthropic-beta': needed.join(',') };
}

function objectionTo(body: Record<string, unknown>): string | null {
  const field = Object.keys(body).find((name) => !FIELDS.has(name));
  if (field !== undefined) return `the field ${short(field)}`;
  const { tools, messages, system } = body;
  return objectionToTools(tools) ?? objectionToMessages(messages) ?? objectionToBlocks(system, 0);
}

function objectionToTools(tools: unknown): string | null {
  if (tools === undefined || tools === null) return null;
  if (!Array.isArray(tools)) return 'tools that are no list';
  return firstOf(tools, objectionToTool);
}

function objectionToTool(tool: unknown): string | null {
  if (!isRecord(tool)) return 'a tool that is none';
  const { type } = tool;
  if (type === undefined || type === null || type === 'custom') return null;
  return typeof type === 'string' && TOOL_SEARCH.test(type) ? null : `the tool type ${short(type)}`;
}

function objectionToMessages(messages: unknown): string | null {
  if (messages === undefined) return null;
  if (!Array.isArray(messages)) return 'messages that are no list';
  return firstOf(messages, (message) =>
    isRecord(message) ? objectionToBlocks(message.content, 0) : 'a message that is none',
  );
}

function objectionToBlocks(content: unknown, depth: number): string | null {
  if (!Array.isArray(content)) return isRecord(content) ? 'content that is no list' : null;
  if (depth > MAX_DEPTH) return 'content that goes too deep';
  return firstOf(content, (block) => objectionToBlock(block, depth));
}

function objectionToBlock(block: unknown, depth: number): string | null {
  if (!isRecord(block)) return 'a block that is none';
  const { type, source, tool, content } = block;
  if (typeof type !== 'string' || !BLOCKS.has(type)) return `the block type ${short(type)}`;
  if (type === 'tool_addition') return objectionToAddition(tool);
  if (type === 'image' || type === 'document') {
    if (!isRecord(source) || !SOURCES.has(String(source.type)))
      return `a source of type ${short(isRecord(source) ? source.type : source)}`;
    return objectionToBlocks(source.content, depth + 1);
  }
  return type === 'tool_result' ? objectionToBlocks(content, depth + 1) : null;
}

/** A tool that is declared, or one that is defined where it is added. */
function objectionToAddition(tool: unknown): string | null {
  if (!isRecord(tool)) return 'a tool that is none';
  if (tool.type === 'tool_reference') return null;
  return tool.type === 'tool_definition'
    ? objectionToTool(tool.definition)
    : `the tool type ${short(tool.type)}`;
}

/** Those that may answer. What is no name counts as one that is not offered. */
function modelsIn({ model, fallbacks }: Record<string, unknown>): string[] {
  const others: unknown[] = Array.isArray(fallbacks) ? fallbacks : [fallbacks ?? []].flat();
  const all = [model, ...others.map((other) => (isRecord(other) ? other.model : other))];
  return all.map((name) => (typeof name === 'string' ? name : ''));
}

function firstOf(list: readonly unknown[], objection: (item: unknown) => string | null): string | null {
  for (const item of list) {
    const reason = objection(item);
    if (reason !== null) return reason;
  }
  return null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function short(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : `of type ${typeof value}`;
}
