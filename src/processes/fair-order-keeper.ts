import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { every } from '../platform/timing/every.js';
import { FairOrderRepository } from './fair-order.repository.js';

const BATCH = 100;

/**
 * Keeps everybody's turns in a row. What is cancelled leaves a gap that its caller would wait through, and what comes back
 * after the queue has gone on would go before everybody else's.
 */
@Injectable()
export class FairOrderKeeper implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger(FairOrderKeeper.name);
  private repeated: ReturnType<typeof every> | null = null;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly order: FairOrderRepository,
  ) {}

  onApplicationBootstrap(): void {
    this.repeated = every(
      this.config.RECONCILER_INTERVAL_MS,
      () => this.putInOrder(),
      (err) => this.logger.debug({ err }, 'The queue could not be put in order; the next look does it.'),
    );
  }

  onApplicationShutdown(): void {
    this.repeated?.stop();
  }

  private async putInOrder(): Promise<void> {
    for (const userId of await this.order.findOutOfOrder(BATCH)) await this.order.putInOrder(userId);
  }
}
