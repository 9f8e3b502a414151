import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import { ApiClient } from './support/api-client.js';
import { untilNoCliOf } from './support/cli-processes.js';
import { type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { ADMIN_PASSWORD } from './support/test-server.js';

const [TOKEN, HEADER] = ['notes-token-7d1c', 'Bearer far-token-93aa'];
/** The script is an argument: of the machine's files a sandbox shows those of the system alone. */
const SCRIPT = readFileSync(resolve('test/support/notes-server.sh'), 'utf8');
const MCP_CONFIG = {
  mcpServers: {
    notes: { command: '/bin/sh', args: ['-c', SCRIPT, 'sh', "it's one"], env: { NOTES_TOKEN: TOKEN } },
    broken: { command: '/bin/false' },
    far: { type: 'http', url: 'http://127.0.0.1:9/mcp', headers: { Authorization: HEADER } },
  },
};

const call = (tool: string) => `[[tool mcp__notes__${tool} {"text":"milk"}]]`;

(process.platform === 'linux' ? describe : describe.skip)('MCP servers of the operator', () => {
  let directory: string;
  let stores: TestStores;
  let messages: MessagesApi;
  let server: SpawnedServer;
  let client: ApiClient;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'mcp-servers-'));
    writeFileSync(join(directory, 'mcp.json'), JSON.stringify(MCP_CONFIG));
    stores = await createStores();
    messages = await startMessagesApi();
    server = await spawnServer({
      DATABASE_URL: stores.databaseUrl,
      REDIS_URL: stores.redisUrl,
      ADMIN_PASSWORD,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      ANTHROPIC_BASE_URL: messages.url,
      LOG_LEVEL: 'trace',
      CLAUDE_MCP_CONFIG: join(directory, 'mcp.json'),
      CLAUDE_TOOLS: 'Read,Write',
      CLAUDE_SANDBOX: 'required',
      CLAUDE_SESSION_IDLE_MS: '60000',
    });
    client = server.client();
  });
  afterAll(async () => {
    await server.terminate();
    await untilNoCliOf(server.dataDirectory);
    await server.remove();
    await messages.close();
    await stores.drop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** What the model was offered when it was asked this. */
  const offered = (prompt: string) => {
    const { body } = messages.requests.find((request) => request.prompt === prompt) ?? {};
    const { tools } = body as { tools: { name: string }[] };
    return tools.map(({ name }) => name).filter((name) => name === 'Read' || name.startsWith('mcp__'));
  };

  it('are offered beside the tools of the CLI, and run where they are allowed; a session keeps them', async () => {
    const prompt = call('add');
    const { body } = await client.execute({ prompt, allowedTools: ['mcp__notes__add'] });
    expect(body).toMatchObject({ status: 'completed', result: 'The tool said: noted 1', engine: 'cli' });
    expect(offered(prompt).toSorted()).toEqual(
      ['Read', 'mcp__notes__add', 'mcp__notes__list', 'mcp__notes__look'].toSorted(),
    );
    const { body: second } = await client.execute({
      prompt,
      allowedTools: ['mcp__notes__add'],
      sessionId: body.sessionId,
    });
    expect(second).toMatchObject({ result: 'The tool said: noted 2' });
  });

  it('see their arguments and variables, and neither the key nor the way to the Messages API', async () => {
    const { body } = await client.execute({ prompt: call('look'), allowedTools: ['mcp__notes'] });
    expect(body.result).toBe(
      `The tool said: args: it's one env: ${TOKEN} key:  socket: hidden folder: /workspace`,
    );
  });

  it.each(['deny', 'acceptEdits', 'plan'])(
    'are refused by %s where nothing allows them',
    async (permissionMode) => {
      const { body } = await client.execute({ prompt: call('add'), permissionMode });
      expect(body).toMatchObject({ status: 'completed', permissionDenials: [{ name: 'mcp__notes__add' }] });
      expect(body.result).toMatch(/^The tool failed: Permission/);
    },
  );

  it('are asked for by ask', async () => {
    const process = await client.submit({ prompt: call('add'), permissionMode: 'ask' });
    const question = (await client.waitForEvent(
      process.id,
      ({ type }) => type === 'permission_requested',
    )) as Extract<ProcessEvent, { type: 'permission_requested' }>;
    expect(question).toMatchObject({ tool: 'mcp__notes__add', input: { text: 'milk' } });
    const path = `/api/v1/claude/processes/${process.id}/permissions/${question.permissionId}`;
    await client.request('POST', path, { decision: 'allow' });
    expect(await client.untilEnded(process.id)).toMatchObject({ result: 'The tool said: noted 1' });
  });

  it('are not run beside those that a request names', async () => {
    const some = await client.execute({
      prompt: `One of them\n${call('add')}\n${call('list')}`,
      tools: ['Read', 'mcp__notes__list'],
      allowedTools: ['mcp__notes'],
    });
    const { items } = await client.events(some.body.id, '?limit=1000');
    expect(items.filter(({ type }) => type === 'tool_result')).toMatchObject([
      { isError: true },
      { isError: false },
    ]);
    expect(some.body.result).toBe('The tool said: there are 0');

    const allowedTools = ['mcp__notes'];
    const wide = await client.execute({ prompt: call('add'), tools: ['Read', 'mcp__notes'], allowedTools });
    expect(wide.body.result).toBe('The tool said: noted 1');
    const { sessionId } = wide.body;
    const narrow = { tools: ['Read', 'mcp__notes__list'], allowedTools, sessionId };
    const { body } = await client.execute({ prompt: `Not any more\n${call('add')}`, ...narrow });
    expect(body.result).toContain('is not available');

    for (const restriction of [{ tools: ['Read'] }, { disallowedTools: ['mcp__notes'] }]) {
      const prompt = `${JSON.stringify(restriction)}\n${call('add')}`;
      const { body } = await client.execute({ prompt, allowedTools: ['mcp__notes'], ...restriction });
      expect(body.result).toContain('No such tool available');
      expect(offered(prompt)).toEqual(['Read']);
    }
  });

  it.each([
    ['of a server that there is not', { tools: ['Read', 'mcp__other__add'] }, '/tools/1'],
    ['the same, allowed', { allowedTools: ['mcp__other'] }, '/allowedTools/0'],
    ['the same, disallowed', { disallowedTools: ['mcp__other'] }, '/disallowedTools/0'],
    ['of a server whose name begins so', { tools: ['mcp__note__add'] }, '/tools/0'],
    ['without a name', { tools: ['mcp__notes__'] }, '/tools/0'],
    ['of a server that the sandbox does not reach', { tools: ['mcp__far__find'] }, '/tools/0'],
    ['of the CLI that the operator does not offer', { tools: ['Bash'] }, '/tools/0'],
  ])('are refused at the door: a tool %s', async (_, request, pointer) => {
    const { status, body } = await client.request('POST', '/api/v1/claude/execute', {
      prompt: 'x',
      ...request,
    });
    expect([status, body.code, body.errors[0]?.pointer]).toEqual([422, 'tool_not_allowed', pointer]);
  });

  it('cannot be brought by a request', async () => {
    const mcpServers = { mine: { command: '/bin/sh' } };
    const { status, body } = await client.request('POST', '/api/v1/claude/execute', {
      prompt: 'x',
      mcpServers,
    });
    expect([status, body.errors[0]?.pointer, body.errors[0]?.code]).toEqual([
      400,
      '/mcpServers',
      'unknown_field',
    ]);
  });

  it('are told of by name where they fail or are not reached, and their secrets nowhere', async () => {
    await server.line(/mcp_servers_left_out/);
    await server.line(/mcp_server_failed/);
    const administrator = await ApiClient.login(server.url, 'admin@claude-runner.local', ADMIN_PASSWORD);
    const told: string[] = [];
    for (const path of ['/api/v1/claude/health', '/health/ready', '/openapi.json']) {
      const response = await administrator.fetch(path);
      expect(response.status).toBe(200);
      told.push(await response.text());
    }
    const said = server.lines.join('\n');
    for (const secret of [TOKEN, HEADER]) {
      // What a tool answers is its caller's: the log of the server has none of it.
      expect(said).not.toContain(secret);
      expect(told.join()).not.toContain(secret);
    }
  });
});
