import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readConfig } from './config.js';

const directory = mkdtempSync(join(tmpdir(), 'mcp-config-'));
let files = 0;

function configOf(content: unknown) {
  const file = join(directory, `${(files += 1)}.json`);
  const isText = typeof content === 'string' || Buffer.isBuffer(content);
  writeFileSync(file, isText ? content : JSON.stringify(content));
  return readConfig({ CLAUDE_MCP_CONFIG: file }).mcpServers;
}

const SECRET = 'not-to-be-told';
const stdio = { command: '/usr/bin/notes', args: ['--all', 'a b'], env: { TOKEN: SECRET } };
const http = { type: 'http', url: 'https://tools.example/mcp', headers: { Authorization: SECRET } };

describe('CLAUDE_MCP_CONFIG', () => {
  it('is no servers where it is unset', () => {
    expect(readConfig({}).mcpServers).toEqual({});
  });

  it("names a file in the form of Claude Code's .mcp.json", () => {
    const mcpServers = { notes: stdio, 'far-away_2': http, old: { type: 'sse', url: 'http://old.example' } };
    expect(configOf({ mcpServers })).toEqual({ ...mcpServers, notes: { type: 'stdio', ...stdio } });
    expect(configOf({ mcpServers: {} })).toEqual({});
  });

  it('ends the start where the file cannot be read', () => {
    expect(() => readConfig({ CLAUDE_MCP_CONFIG: '/nowhere/mcp.json' })).toThrow(
      'CLAUDE_MCP_CONFIG: the file cannot be read (ENOENT)',
    );
  });

  it.each([
    ['no JSON', `{"mcpServers": ${SECRET}`, 'the file holds no JSON'],
    [
      'no UTF-8',
      Buffer.from(
        JSON.stringify({ mcpServers: { far: { ...http, headers: { A: `${SECRET}\u00fc` } } } }),
        'latin1',
      ),
      'the file is not in UTF-8',
    ],
    ['no object', [], 'the file: '],
    ['nothing', {}, 'mcpServers: must be an object of servers'],
    ['a field beside the servers', { mcpServers: {}, servers: {} }, 'the file: Unrecognized key: "servers"'],
    ['a name with a blank', { mcpServers: { 'my notes': stdio } }, 'mcpServers.my notes must be a name'],
    ['a name of two meanings', { mcpServers: { a__b: stdio } }, 'mcpServers.a__b must be a name'],
    ['a name that is too long', { mcpServers: { ['a'.repeat(65)]: stdio } }, 'must be a name of 1 to 64'],
    ['no command', { mcpServers: { notes: { args: [SECRET] } } }, 'mcpServers.notes.command: must be a text'],
    [
      'an empty command',
      { mcpServers: { notes: { command: '' } } },
      'mcpServers.notes.command: must be an absolute',
    ],
    [
      'a command in the workspace',
      { mcpServers: { notes: { command: './notes' } } },
      'must be an absolute path',
    ],
    [
      'args that are no list',
      { mcpServers: { notes: { ...stdio, args: SECRET } } },
      'mcpServers.notes.args: ',
    ],
    ['an unknown field', { mcpServers: { notes: { ...stdio, timeout: 1 } } }, 'Unrecognized key: "timeout"'],
    ['a field of another type', { mcpServers: { far: { ...http, env: {} } } }, 'Unrecognized key: "env"'],
    ['an unknown type', { mcpServers: { far: { ...http, type: 'ws' } } }, 'must be a server, of the type'],
    [
      'another URL',
      { mcpServers: { far: { ...http, url: `ftp://${SECRET}` } } },
      'mcpServers.far.url: must be a URL',
    ],
    [
      'a header of two lines',
      { mcpServers: { far: { ...http, headers: { A: `${SECRET}\nB: c` } } } },
      'mcpServers.far.headers.A: must be one line',
    ],
    [
      'a variable without a name',
      { mcpServers: { notes: { ...stdio, env: { 'A=B': SECRET } } } },
      'must be the name of a variable',
    ],
    [
      'a value that is no text',
      { mcpServers: { notes: { ...stdio, env: { A: 1 } } } },
      'mcpServers.notes.env.A: must be a text',
    ],
    [
      'a variable to fill in',
      { mcpServers: { notes: { ...stdio, env: { A: `\${${SECRET}}` } } } },
      'must not hold ${…}',
    ],
  ])('ends the start, and tells no value, where the file holds %s', (_, content, problem) => {
    const read = () => configOf(content);
    expect(read).toThrow(/^CLAUDE_MCP_CONFIG: /);
    expect(read).toThrow(problem);
    expect(read).not.toThrow(SECRET);
  });
});
