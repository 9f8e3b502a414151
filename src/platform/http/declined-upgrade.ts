import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';

const OF_UPGRADES = new Set(['upgrade', 'http2-settings']);

/**
 * Answers a request as if it had not asked for another protocol, as a server may (RFC 9110, 7.8). Node has stopped reading
 * the connection as HTTP by then, so it is begun anew, with the request in front.
 */
export function declineUpgrade(
  server: Server,
  { request, socket, head }: { request: IncomingMessage; socket: Duplex; head: Buffer },
): void {
  socket.unshift(Buffer.concat([Buffer.from(withoutUpgrade(request), 'latin1'), head]));
  server.emit('connection', socket);
}

function withoutUpgrade({ method, url, httpVersion, rawHeaders }: IncomingMessage): string {
  const lines = [`${String(method)} ${String(url)} HTTP/${httpVersion}`];
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name = '', value = ''] = rawHeaders.slice(index);
    if (OF_UPGRADES.has(name.toLowerCase())) continue;
    lines.push(`${name}: ${name.toLowerCase() === 'connection' ? withoutUpgradeOptions(value) : value}`);
  }
  return `${lines.join('\r\n')}\r\n\r\n`;
}

const withoutUpgradeOptions = (connection: string) =>
  connection
    .split(',')
    .filter((option) => !OF_UPGRADES.has(option.trim().toLowerCase()))
    .join(',');
