import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** A TCP connection to a server, for what no HTTP client would send. */
export class RawConnection {
  private received = '';

  private constructor(readonly socket: Socket) {
    socket.setEncoding('latin1').on('data', (text: string) => (this.received += text));
    socket.on('error', () => undefined); // told by its close
  }

  static async open(url: string): Promise<RawConnection> {
    const { hostname, port } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port) });
    await once(socket, 'connect');
    return new RawConnection(socket);
  }

  send(...lines: string[]): void {
    this.socket.write(lines.join('\r\n'));
  }

  /** The next answer, which must say its length. Rejects when the connection ends without one. */
  async answer(): Promise<{ status: number; head: string; body: string }> {
    const end = await this.until(() => this.received.indexOf('\r\n\r\n') + 1);
    const head = this.received.slice(0, end - 1);
    const length = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
    const bodyStart = head.length + 4;
    await this.until(() => this.received.length >= bodyStart + length);
    const body = this.received.slice(bodyStart, bodyStart + length);
    this.received = this.received.slice(bodyStart + length);
    return { status: Number(head.split(' ')[1]), head, body };
  }

  close(): void {
    this.socket.destroy();
  }

  private async until<T>(found: () => T): Promise<T> {
    for (;;) {
      const result = found();
      if (result) return result;
      if (this.socket.closed) throw new Error(`The connection was closed after: ${this.received}`);
      await Promise.race([once(this.socket, 'data'), once(this.socket, 'close')]);
    }
  }
}
