import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import type { McpServers } from '../../../libs/claude-engine/index.js';

const MAX_SERVERS = 32;

/** A single `_` between other characters: `mcp__<server>__<tool>` would have two meanings otherwise. */
const NAME = /^(?=.{1,64}$)[A-Za-z0-9-]+(?:_[A-Za-z0-9-]+)*$/;

/** The CLI would fill in a variable of its own, and nobody who writes the file knows those. */
const text = z
  .string('must be a text')
  .regex(/^[^\0]*$/, 'must not hold the character U+0000')
  .refine((value) => !/\$\{[^}]*\}/.test(value), 'must not hold ${…}: no variables are filled in');

const texts = (name: RegExp, what: string, value = text) =>
  z.record(z.string().regex(name, `must be the name of ${what}`), value).optional();

const RemoteSchema = {
  url: text.refine(
    (value) => URL.canParse(value) && /^https?:$/.test(new URL(value).protocol),
    'must be a URL that begins with http:// or https://',
  ),
  headers: texts(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'a header', text.regex(/^[^\r\n]*$/, 'must be one line')),
};

const ServerSchema = z.preprocess(
  (given) =>
    typeof given === 'object' && given !== null && !('type' in given) ? { type: 'stdio', ...given } : given,
  z.discriminatedUnion(
    'type',
    [
      z.strictObject({
        type: z.literal('stdio'),
        // One in the workspace would be whatever Claude has written there.
        command: text.regex(/^(\/.+|[^/]+)$/, 'must be an absolute path, or a name without slashes'),
        args: z.array(text).optional(),
        env: texts(/^[A-Za-z_]\w*$/, 'a variable'),
      }),
      z.strictObject({ type: z.literal('http'), ...RemoteSchema }),
      z.strictObject({ type: z.literal('sse'), ...RemoteSchema }),
    ],
    'must be a server, of the type stdio, http or sse',
  ),
);

const FileSchema = z.strictObject({
  mcpServers: z
    .record(
      z.string().regex(NAME, 'must be a name of 1 to 64 letters, digits, - and single _ between them'),
      ServerSchema,
      'must be an object of servers',
    )
    .refine((servers) => Object.keys(servers).length <= MAX_SERVERS, `must not be more than ${MAX_SERVERS}`),
});

/**
 * Reads a file in the form of Claude Code's `.mcp.json`.
 * @param path undefined: there are no servers
 * @returns what is wrong with it as well, without the values that it holds: they may be secrets
 */
export function readMcpConfig(path: string | undefined): { servers: McpServers; problems: string[] } {
  if (path === undefined) return { servers: {}, problems: [] };
  const { content, problem } = readJson(path);
  if (problem !== null) return { servers: {}, problems: [problem] };
  const parsed = FileSchema.safeParse(content);
  if (parsed.success) return { servers: parsed.data.mcpServers, problems: [] };
  return { servers: {}, problems: parsed.error.issues.flatMap(describe) };
}

function readJson(path: string): { content: unknown; problem: string | null } {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const { code = 'unknown' } = error as NodeJS.ErrnoException;
    return { content: null, problem: `the file cannot be read (${code})` };
  }
  // What is no UTF-8 would be read as another value than the one that was meant: a token, say.
  if (!isUtf8(bytes)) return { content: null, problem: 'the file is not in UTF-8' };
  try {
    return { content: JSON.parse(bytes.toString('utf8')), problem: null };
  } catch {
    // What the error says quotes the file.
    return { content: null, problem: 'the file holds no JSON' };
  }
}

function describe(issue: z.core.$ZodIssue): string[] {
  const at = issue.path.map(String).join('.');
  const place = at === '' ? 'the file' : at;
  if (issue.code === 'invalid_key') return issue.issues.map(({ message }) => `${place} ${message}`);
  return [`${place}: ${issue.message}`];
}
