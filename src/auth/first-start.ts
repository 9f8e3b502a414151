import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { Lifecycle } from '../platform/health/lifecycle.js';
import { whileStarting } from '../platform/prisma/start-patience.js';
import { type Account, UsersService } from '../users/users.service.js';
import { makeApiKey } from './api-key-format.js';
import { ApiKeysService } from './api-keys.service.js';
import { keepSecret, readSecret } from './secret-file.js';

const PASSWORD_BYTES = 18;
export const PASSWORD_FILE = 'admin-password';
export const API_KEY_FILE = 'api-key';

/**
 * Makes the administrator of an empty database, and the first key, which may execute and read. What it makes up lies in
 * `DATA_DIR/admin-password` (unless `ADMIN_PASSWORD` says it) and in `DATA_DIR/api-key`, both mode 0600. Each is written
 * down before the database knows it: a start that is interrupted in between goes on with what it finds there.
 */
@Injectable()
export class FirstStart implements OnModuleInit {
  private administrator: Account | null = null;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly users: UsersService,
    private readonly apiKeys: ApiKeysService,
    private readonly lifecycle: Lifecycle,
  ) {}

  get administratorEmail(): string | null {
    return this.administrator?.email ?? null;
  }

  // Before any module begins to work: a start that is broken off here leaves nothing that runs.
  async onModuleInit(): Promise<void> {
    await whileStarting(() => this.makeWhatIsMissing(), {
      patienceMs: this.config.START_PATIENCE_MS,
      signal: this.lifecycle.drainSignal,
    });
  }

  private async makeWhatIsMissing(): Promise<void> {
    this.administrator = (await this.users.findAdministrator()) ?? (await this.createAdministrator());
    if (this.administrator && (await this.wantsKey(this.administrator.id)))
      await this.createKey(this.administrator.id);
  }

  private async createAdministrator(): Promise<Account | null> {
    const { ADMIN_EMAIL, ADMIN_PASSWORD } = this.config;
    const path = join(this.config.DATA_DIR, PASSWORD_FILE);
    const password =
      ADMIN_PASSWORD ?? (await keepSecret(path, randomBytes(PASSWORD_BYTES).toString('base64url')));
    const account = await this.users.createAdministrator(ADMIN_EMAIL, password);
    if (account) return account;
    // Another server was first. Unless it shares the directory, the password of this one is nobody's.
    if (ADMIN_PASSWORD === undefined && !(await this.users.findByCredentials(ADMIN_EMAIL, password)))
      await rm(path, { force: true });
    return this.users.findAdministrator();
  }

  // On a laptop the data directory may have been emptied, or point to another database than before.
  private async wantsKey(administratorId: string): Promise<boolean> {
    const key = await readSecret(this.keyPath);
    if (key !== null && (await this.apiKeys.isUsable(key))) return false;
    return this.config.NODE_ENV !== 'production' || !(await this.apiKeys.hasAny(administratorId));
  }

  private async createKey(administratorId: string): Promise<void> {
    const register = async () =>
      this.apiKeys.register(administratorId, await keepSecret(this.keyPath, makeApiKey().key), {
        name: 'First key',
        scopes: ['claude:execute', 'claude:read'],
      });
    if (await register()) return;
    // What lies there is no key, or no longer one.
    await rm(this.keyPath);
    await register();
  }

  private get keyPath(): string {
    return join(this.config.DATA_DIR, API_KEY_FILE);
  }
}
