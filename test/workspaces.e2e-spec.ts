import { execFile, execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Problem } from '../src/platform/errors/errors.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import type { Session } from '../src/sessions/sessions.schemas.js';
import type { WorkspaceFilePage } from '../src/sessions/workspace-files.schemas.js';
import type { ApiClient } from './support/api-client.js';
import { RawConnection } from './support/raw-connection.js';
import { startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser } from './support/users.js';

const SESSIONS = '/api/v1/claude/sessions';
const MIB = 1024 * 1024;

let runner: TestServer;
let id: string;
beforeAll(async () => {
  runner = await startTestServer({ WORKSPACE_QUOTA_MB: '4', WORKSPACE_MAX_FILE_MB: '2' });
});
afterAll(() => runner.stop());
beforeEach(async () => {
  id = (await runner.client.request<Session>('POST', SESSIONS, {})).body.id;
});

const at = (path: string) => `${SESSIONS}/${id}/files/${path}`;
const put = (path: string, body: RequestInit['body'] = path, client: ApiClient = runner.client) =>
  client.fetch(at(path), { method: 'PUT', body: body ?? null, duplex: 'half' });
const get = (path: string, client: ApiClient = runner.client) => client.fetch(at(path));
const list = async (query = '') =>
  (await runner.client.request<WorkspaceFilePage>('GET', `${SESSIONS}/${id}/files${query}`)).body;
const paths = async () => (await list()).items.map(({ path }) => path);
const folder = () => join(runner.dataDirectory, 'engine/workspaces', id);
const staged = () => readdir(join(runner.dataDirectory, 'engine/workspaces/.staging'));
const codeOf = async (response: Response) => ((await response.json()) as Problem).code;

/** Says something in the session, and waits for what becomes of it. */
const say = async (prompt: string, request: object = {}): Promise<Process> =>
  runner.client.untilEnded((await runner.client.submit({ prompt, sessionId: id, ...request })).id);

describe('a workspace', () => {
  it('whose folders lie too deep is not copied for a fork, of which nothing is left', async () => {
    const { result } = await say('Begin\n[[text Begun.]]');
    expect(result).toBe('Begun.');
    await mkdir(join(folder(), ...Array<string>(66).fill('d')), { recursive: true });
    const sessions = () => runner.stores.query('SELECT id FROM sessions ORDER BY id');
    const folders = () => readdir(join(runner.dataDirectory, 'engine/workspaces'));
    const before = [await sessions(), await folders()];
    const fork = await runner.client.request('POST', `${SESSIONS}/${id}/fork`, {});
    expect([fork.status, fork.body]).toEqual([
      422,
      expect.objectContaining({
        code: 'workspace_not_copied',
        detail: 'The folders of the session lie too deep in one another to be copied.',
        retryable: false,
      }),
    ]);
    expect([await sessions(), await folders()]).toEqual(before);
    const request = { prompt: 'Fork\n[[text Forked.]]', sessionId: id, forkSession: true };
    const executed = await runner.client.execute(request);
    expect(executed).toMatchObject({ status: 422, body: { code: 'workspace_not_copied' } });
    expect([await sessions(), await folders()]).toEqual(before);
    expect((await runner.client.fetch(at('d'), { method: 'DELETE' })).status).toBe(204);
    const later = await runner.client.request('POST', `${SESSIONS}/${id}/fork`, {});
    expect(later.status).toBe(201);
  });

  it('is filled, worked in by a run, and read again; the process tells what it changed', async () => {
    expect(await list()).toEqual({ items: [], nextCursor: null });
    expect((await put('notes/in.txt', 'forty-two')).status).toBe(201);
    expect((await put('gone.txt', '')).status).toBe(201);
    const process = await say(
      'Read it\n[[tool Read {"file_path":"notes/in.txt"}]]\n[[tool Edit {"file_path":"notes/in.txt","old_string":"two","new_string":"three"}]]\n' +
        '[[tool Write {"file_path":"notes/out.txt","content":"found"}]]\n[[text Done.]]',
      { permissionMode: 'acceptEdits' },
    );
    expect(process).toMatchObject({ status: 'completed', result: 'Done.' });
    expect(JSON.stringify(runner.messages.requests)).toContain('forty-two');
    expect(process.filesChanged).toEqual({
      count: 2,
      items: [
        { path: 'notes/in.txt', change: 'modified' },
        { path: 'notes/out.txt', change: 'added' },
      ],
    });
    const { items } = await list();
    expect(items.map(({ path, type, size }) => [path, type, size])).toEqual([
      ['gone.txt', 'file', 0],
      ['notes', 'folder', null],
      ['notes/in.txt', 'file', 11],
      ['notes/out.txt', 'file', 5],
    ]);
    const downloaded = await get('notes/out.txt');
    expect(await downloaded.text()).toBe('found');
    expect(Object.fromEntries(downloaded.headers)).toMatchObject({
      'content-length': '5',
      'content-type': 'application/octet-stream',
      'content-disposition': "attachment; filename*=UTF-8''out.txt",
      'x-content-type-options': 'nosniff',
      etag: expect.stringMatching(/^"[\w-]+"$/) as string,
    });

    // What comes after the first run belongs to who the CLIs of the workspace are by now.
    expect((await put('notes/in.txt', 'again')).status).toBe(204);
    expect((await put('deep/er/new.txt', 'new')).status).toBe(201);
    expect((await runner.client.fetch(at('gone.txt'), { method: 'DELETE' })).status).toBe(204);
    const edit = (path: string, word: string) =>
      `[[tool Read {"file_path":"${path}"}]]\n[[tool Edit {"file_path":"${path}","old_string":"${word}","new_string":"changed"}]]`;
    const second = await say(
      `Change them\n${edit('notes/in.txt', 'again')}\n${edit('deep/er/new.txt', 'new')}\n[[tool Write {"file_path":"deep/er/beside.txt","content":"x"}]]`,
      { permissionMode: 'acceptEdits' },
    );
    expect(second.filesChanged?.items.map(({ path, change }) => `${change} ${path}`)).toEqual([
      'added deep/er/beside.txt',
      'modified deep/er/new.txt',
      'modified notes/in.txt',
    ]);
    expect(await (await get('deep/er/new.txt')).text()).toBe('changed');

    const { body: ofDeleted } = await runner.client.request<Process>(
      'DELETE',
      `${second.links.self}/content`,
    );
    expect(ofDeleted.filesChanged).toBeNull();
  });

  it('comes as a tar that unpacks to the same', async () => {
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251));
    expect((await put('a/bytes', bytes)).status).toBe(201);
    expect((await put(`b/${encodeURIComponent('ü ?#%'.repeat(20))}`, 'named')).status).toBe(201);
    await symlink('a/bytes', join(folder(), 'link'));
    const unpacked = await mkdtemp(join(tmpdir(), 'unpacked-'));
    const response = await runner.client.fetch(`${SESSIONS}/${id}/archive`);
    expect(response.headers.get('content-type')).toBe('application/x-tar');
    const tar = execFile('tar', ['-xf', '-', '-C', unpacked]);
    const left = new Promise((resolve) => tar.once('exit', resolve));
    await pipeline(Readable.fromWeb(response.body!), tar.stdin!);
    expect(await left).toBe(0);
    expect(execFileSync('diff', ['-r', '--no-dereference', folder(), unpacked]).toString()).toBe('');
    expect((await get('a/bytes')).headers.get('content-length')).toBe('300000');
    await rm(unpacked, { recursive: true });
  });

  it('is listed page by page', async () => {
    for (const path of ['a', 'b/c', 'd']) await put(path);
    const first = await list('?limit=2');
    expect([first.items.map(({ path }) => path), first.nextCursor]).toEqual([['a', 'b'], 'b']);
    const second = await list(`?limit=2&cursor=${first.nextCursor}`);
    expect([second.items.map(({ path }) => path), second.nextCursor]).toEqual([['b/c', 'd'], null]);
  });

  it('takes uploads while a process of it runs', async () => {
    const process = await runner.client.submit({ prompt: 'Hold\n[[hang]]', sessionId: id });
    await runner.messages.waitForRequest(({ prompt }) => prompt === 'Hold\n[[hang]]');
    expect((await put('late.txt', 'x')).status).toBe(201);
    await runner.client.cancel(process.id);
    const { filesChanged } = await runner.client.untilEnded(process.id);
    expect(filesChanged).toEqual({ count: 1, items: [{ path: 'late.txt', change: 'added' }] });
  });
});

describe('an upload leaves nothing', () => {
  it('where the file is too large, as it says or as it comes', async () => {
    const large = Buffer.alloc(2 * MIB + 1);
    const refused = await put('large', large);
    expect([refused.status, await codeOf(refused)]).toEqual([413, 'file_too_large']);
    const streamed = await put('large', Readable.toWeb(Readable.from([large])) as ReadableStream);
    expect([streamed.status, await codeOf(streamed)]).toEqual([413, 'file_too_large']);
    expect([await paths(), await staged()]).toEqual([[], []]);
    expect((await put('large', large.subarray(1))).status).toBe(201);
  });

  it('where the workspace would hold more than it may', async () => {
    const half = Buffer.alloc(2 * MIB);
    expect([(await put('a', half)).status, (await put('b', half)).status]).toEqual([201, 201]);
    const refused = await put('c', 'x');
    expect([refused.status, await codeOf(refused)]).toEqual([413, 'workspace_full']);
    expect((await put('b', 'x')).status).toBe(204);
    expect((await put('c', 'x')).status).toBe(201);
  });

  it('where it breaks off', async () => {
    await put('kept', 'old');
    const connection = await RawConnection.open(runner.url);
    connection.send(
      `PUT ${at('kept')} HTTP/1.1`,
      'Host: x',
      `Authorization: Bearer ${runner.client.token}`,
      'Content-Length: 1000000',
      '',
      'new',
    );
    while ((await staged()).length === 0);
    connection.close();
    while ((await staged()).length > 0);
    expect(await (await get('kept')).text()).toBe('old');
    expect(await paths()).toEqual(['kept']);
  });
});

describe('a run whose workspace holds more than it may', () => {
  it('is ended while it writes, and not begun after that, until there is room again', async () => {
    const writing = await runner.client.submit({ prompt: 'Write\n[[hang]]', sessionId: id });
    await runner.messages.waitForRequest(({ prompt }) => prompt === 'Write\n[[hang]]');
    // As a program of the run would: no upload is let in.
    await writeFile(join(folder(), 'huge'), Buffer.alloc(5 * MIB));
    const FULL = { status: 'failed', error: { code: 'workspace_full', retryable: false } };
    const ended = await runner.client.untilEnded(writing.id);
    expect(ended).toMatchObject({ ...FULL, filesChanged: { items: [{ path: 'huge', change: 'added' }] } });
    expect(await say('More')).toMatchObject({ ...FULL, numTurns: null });
    expect(runner.messages.requests.some(({ prompt }) => prompt === 'More')).toBe(false);
    await runner.client.fetch(at('huge'), { method: 'DELETE' });
    expect(await say('[[text Better]]')).toMatchObject({ status: 'completed', result: 'Better' });
  });
});

describe('what is not a file of the workspace is refused:', () => {
  const raw = async (method: string, target: string) => {
    const connection = await RawConnection.open(runner.url);
    connection.send(
      `${method} ${SESSIONS}/${id}/files/${target} HTTP/1.1`,
      'Host: x',
      `Authorization: Bearer ${runner.client.token}`,
      ...(method === 'PUT' ? ['Content-Length: 1', '', 'x'] : ['', '']),
    );
    const { status, body } = await connection.answer();
    connection.close();
    return { status, problem: JSON.parse(body) as Problem };
  };

  it.each([
    ['..', '../../secret', 'path_outside'],
    ['.. encoded', '%2e%2e/%2e%2e/secret', 'path_outside'],
    ['.. and / encoded', 'a%2f..%2f..%2fsecret', 'path_outside'],
    ['the root', '%2fetc/passwd', 'path_outside'],
    ['NUL', 'a%00b', 'contains_nul'],
    ['//', 'a//b', 'path_not_plain'],
    ['a name of 256 bytes', 'x'.repeat(256), 'too_big'],
    ['65 folders', 'd/'.repeat(65), 'path_not_plain'],
    ['a file below 64 folders', `${'d/'.repeat(64)}x`, 'too_deep'],
  ])('%s', async (_, target, issue) => {
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const { status, problem } = await raw(method, target);
      expect([method, status, problem.code, problem.errors[0]?.code, problem.errors[0]?.pointer]).toEqual([
        ...[method, 400, 'validation_failed', issue, '/path'],
      ]);
    }
    expect(await paths()).toEqual([]);
  });

  it('a symlink out, a folder, a pipe, and what is not there', async () => {
    await mkdir(folder(), { recursive: true });
    await symlink('/etc/passwd', join(folder(), 'link'));
    await symlink('/etc', join(folder(), 'etc'));
    execFileSync('mkfifo', [join(folder(), 'pipe')]);
    await mkdir(join(folder(), 'folder'));
    const refusals = [];
    for (const path of ['link', 'etc/passwd', 'folder', 'pipe', 'folder/none', 'none/x'])
      for (const answer of [await get(path), ...(path.includes('none') ? [] : [await put(path, 'x')])])
        refusals.push([path, answer.status, await codeOf(answer)].join(' '));
    expect([...new Set(refusals)]).toEqual([
      'link 409 symlink_not_followed',
      'etc/passwd 409 symlink_not_followed',
      'folder 409 not_a_file',
      'pipe 409 not_a_file',
      'folder/none 404 file_not_found',
      'none/x 404 file_not_found',
    ]);
    expect(await readFile('/etc/passwd', 'utf8')).not.toBe('x');
  });

  it('what is another’s looks as if there were no such session', async () => {
    await put('mine', 'x');
    const stranger = await signInAsNewUser(runner);
    for (const answer of [await get('mine', stranger), await put('mine', 'y', stranger)])
      expect([answer.status, await codeOf(answer)]).toEqual([404, 'session_not_found']);
    expect(await (await get('mine')).text()).toBe('x');
    expect((await get('mine', runner.administrator)).status).toBe(200);
    id = randomUUID();
    expect((await get('mine')).status).toBe(404);
  });

  it('what lies on another server', async () => {
    await say('[[text Here]]');
    await rm(folder(), { recursive: true });
    for (const answer of [
      await get('a'),
      await put('a'),
      await runner.client.fetch(`${SESSIONS}/${id}/files`),
    ])
      expect([answer.status, await codeOf(answer)]).toEqual([409, 'workspace_elsewhere']);
  });
});
