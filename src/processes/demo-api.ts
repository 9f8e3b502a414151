import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { type MessagesApi, startMessagesApi } from '../../libs/messages-api/index.js';

/** Where the CLI finds its answers in demo mode: the scripted Messages API, on loopback. */
@Injectable()
export class DemoApi implements OnApplicationShutdown {
  private api: MessagesApi | null = null;

  async start(): Promise<{ baseUrl: string; apiKey: string }> {
    this.api ??= await startMessagesApi();
    return { baseUrl: this.api.url, apiKey: 'demo' };
  }

  async onApplicationShutdown(): Promise<void> {
    await this.api?.close();
  }
}
