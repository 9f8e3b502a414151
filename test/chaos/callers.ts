import { ApiClient } from '../support/api-client.js';
import type { ServerSlot } from './server-slot.js';

/** The API servers, as a caller behind a load balancer knows them. */
export class Callers {
  private readonly clients: ApiClient[];

  constructor(
    private readonly slots: readonly ServerSlot[],
    key: string,
  ) {
    this.clients = slots.map(({ url }) => new ApiClient(url, key));
  }

  /** Counts around: whoever comes again comes to another one. */
  at(index: number): { client: ApiClient; name: string } {
    const place = index % this.slots.length;
    const [client, slot] = [this.clients[place], this.slots[place]];
    if (!client || !slot) throw new Error('There is no API server.');
    return { client, name: slot.name };
  }
}
