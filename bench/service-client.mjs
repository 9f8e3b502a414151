/**
 * `POST /execute` with `Accept: text/event-stream`, read to its end.
 * @returns milliseconds from the request to the first text and to the result, and the service's own share of them: from
 *   the submit to the event that says that the CLI is up is the CLI's start, which the bare CLI pays as well
 */
export async function throughService(url, key) {
  const start = performance.now();
  const response = await fetch(`${url}/api/v1/claude/execute`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${key}`,
      Accept: 'text/event-stream',
      'Content-Type': 'application/json',
    },
    body: JSON.stringify({ prompt: 'What is the answer?' }),
  });
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
  return { firstTextMs, resultMs };
}
