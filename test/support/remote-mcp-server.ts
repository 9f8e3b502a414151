/* eslint-disable @typescript-eslint/no-deprecated -- of the two transports, operators still have the older one */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

export interface RemoteMcpServer {
  /** By transport. */
  urls: Record<'http' | 'sse', string>;
  close: () => Promise<void>;
}

/** An MCP server over HTTP, by both of its transports, for whoever has the header: `where` says by which of them it was asked. */
export async function startRemoteMcpServer(authorization: string): Promise<RemoteMcpServer> {
  const streams = new Map<string, SSEServerTransport>();

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
    if (request.headers.authorization !== authorization) {
      response.writeHead(401).end();
    } else if (pathname === '/mcp') {
      const transport = new StreamableHTTPServerTransport(); // without sessions
      await serverNamed('http').connect(transport);
      await transport.handleRequest(request, response);
    } else if (pathname === '/sse') {
      const transport = new SSEServerTransport('/messages', response);
      streams.set(transport.sessionId, transport);
      await serverNamed('sse').connect(transport);
    } else {
      const transport = streams.get(searchParams.get('sessionId') ?? '');
      if (transport) await transport.handlePostMessage(request, response);
      else response.writeHead(404).end();
    }
  };

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    urls: { http: `${base}/mcp`, sse: `${base}/sse` },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function serverNamed(transport: string): McpServer {
  const server = new McpServer({ name: 'remote', version: '1' });
  server.registerTool('where', { description: 'Says how it was asked.' }, () => ({
    content: [{ type: 'text', text: `asked by ${transport}` }],
  }));
  return server;
}
