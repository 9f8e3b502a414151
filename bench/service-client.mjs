import { Agent, request } from 'node:http';
import { text } from 'node:stream/consumers';

const agent = new Agent({ keepAlive: true });

/**
 * `POST /execute` with `Accept: text/event-stream`, read to its end.
 * @returns milliseconds from the request to the first text and to the result; when both came, in milliseconds since 1970; the
 *   session that it ran in
 */
export async function throughService({ url, key }, sessionId) {
  const start = performance.now();
  const response = await execute({ url, key }, sessionId, 'text/event-stream');
  let buffer = '';
  let firstTextMs;
  let resultMs;
  for await (const chunk of response.setEncoding('utf8')) {
    buffer += chunk;
    if (buffer.includes('\nevent: text\n')) firstTextMs ??= performance.now() - start;
    if (buffer.includes('\nevent: completed\n')) resultMs ??= performance.now() - start;
  }
  if (resultMs === undefined) throw new Error(`The run did not complete:\n${buffer}`);
  const sentAt = performance.timeOrigin + start;
  return {
    firstTextMs,
    resultMs,
    sentAt,
    heardAt: sentAt + firstTextMs,
    sessionId: await sessionOf({ url, key }, buffer),
  };
}

async function sessionOf(server, eventStream) {
  const id = /"processId":"([^"]+)"/.exec(eventStream)?.[1];
  return (await find(server, id)).sessionId;
}

/** Waits for the answer, as a script would. @returns the session that it ran in */
export async function waitForAnswer(server, sessionId) {
  const response = await execute(server, sessionId, 'application/json');
  const { status, sessionId: session } = JSON.parse(await text(response));
  if (status !== 'completed') throw new Error(`The run did not complete: ${status}.`);
  return session;
}

function execute(server, sessionId, accept) {
  return send(server, 'POST', 'execute', { body: { prompt: 'What is the answer?', sessionId }, accept });
}

/** @returns the process, which goes its way */
export function submit(server, request) {
  return ask(server, 'POST', 'execute/async', request);
}

export function find(server, id) {
  return ask(server, 'GET', `processes/${id}`);
}

export function cancel(server, id) {
  return ask(server, 'DELETE', `processes/${id}`);
}

async function ask(server, method, path, body) {
  const response = await send(server, method, path, { body });
  const answer = JSON.parse(await text(response));
  if (response.statusCode >= 400) throw new Error(`${method} ${path}: ${JSON.stringify(answer)}`);
  return answer;
}

/** Not by `fetch`, which takes the machine a millisecond more: that would count as the service's. */
function send({ url, key }, method, path, { body, accept = 'application/json' }) {
  const headers = { Authorization: `Bearer ${key}`, Accept: accept };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  return new Promise((resolve, reject) => {
    request(`${url}/api/v1/claude/${path}`, { method, agent, headers })
      .once('response', resolve)
      .once('error', reject)
      .end(JSON.stringify(body));
  });
}
