/**
 * `POST /execute` with `Accept: text/event-stream`, read to its end.
 * @returns milliseconds from the request to the first text and to the result; when both came, in milliseconds since 1970; the
 *   session that it ran in
 */
export async function throughService({ url, key }, sessionId) {
  const start = performance.now();
  const response = await execute({ url, key }, sessionId, 'text/event-stream');
  const decoder = new TextDecoder();
  let buffer = '';
  let firstTextMs;
  let resultMs;
  for await (const chunk of response.body) {
    buffer += decoder.decode(chunk, { stream: true });
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
export async function waitForAnswer({ url, key }, sessionId) {
  const { status, sessionId: session } = await (
    await execute({ url, key }, sessionId, 'application/json')
  ).json();
  if (status !== 'completed') throw new Error(`The run did not complete: ${status}.`);
  return session;
}

function execute({ url, key }, sessionId, accept) {
  return fetch(`${url}/api/v1/claude/execute`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, Accept: accept, 'Content-Type': 'application/json' },
    body: JSON.stringify({ prompt: 'What is the answer?', sessionId }),
  });
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

async function ask({ url, key }, method, path, body) {
  const response = await fetch(`${url}/api/v1/claude/${path}`, {
    method,
    headers: {
      Authorization: `Bearer ${key}`,
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${method} ${path}: ${JSON.stringify(answer)}`);
  return answer;
}
