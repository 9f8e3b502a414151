export interface SentEvent {
  id: string;
  event: string;
  data: string;
}

/** Reads server-sent events as they come. */
export async function* readEventStream(response: Response): AsyncGenerator<SentEvent, void> {
  if (!response.body) return;
  let buffer = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body) {
    buffer += decoder.decode(chunk as Uint8Array, { stream: true });
    for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
      const fields = Object.fromEntries(
        buffer
          .slice(0, end)
          .split('\n')
          .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trimStart()]),
      ) as Partial<SentEvent>;
      buffer = buffer.slice(end + 2);
      if (fields.data !== undefined) yield { id: '', event: '', ...fields, data: fields.data };
    }
  }
}
