import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { type Account, UsersService } from '../users/users.service.js';
import { ApiKeysService } from './api-keys.service.js';

const PASSWORD_BYTES = 18;
export const PASSWORD_FILE = 'admin-password';
export const API_KEY_FILE = 'api-key';

/**
 * Makes the administrator of an empty database, and the first key, which may execute and read. What it makes up lies in
 * `DATA_DIR/admin-password` (unless `ADMIN_PASSWORD` says it) and in `DATA_DIR/api-key`, both mode 0600.
 */
@Injectable()
export class FirstStart implements OnApplicationBootstrap {
  private administrator: Account | null = null;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly users: UsersService,
    private readonly apiKeys: ApiKeysService,
  ) {}

  get administratorEmail(): string | null {
    return this.administrator?.email ?? null;
  }

  async onApplicationBootstrap(): Promise<void> {
    const existing = await this.users.findAdministrator();
    const made = existing ? null : await this.createAdministrator();
    this.administrator = existing ?? made ?? (await this.users.findAdministrator());
    if (this.administrator && (await this.wantsKey(made !== null)))
      await this.createKey(this.administrator.id);
  }

  private async createAdministrator(): Promise<Account | null> {
    const given = this.config.ADMIN_PASSWORD;
    const password = given ?? randomBytes(PASSWORD_BYTES).toString('base64url');
    const account = await this.users.createAdministrator(this.config.ADMIN_EMAIL, password);
    if (account && given === undefined) await this.write(PASSWORD_FILE, password);
    return account;
  }

  // On a laptop the data directory may have been emptied, or point to another database than before.
  private async wantsKey(isFirstStart: boolean): Promise<boolean> {
    if (isFirstStart || this.config.NODE_ENV === 'production') return isFirstStart;
    const key = await readFile(join(this.config.DATA_DIR, API_KEY_FILE), 'utf8').catch(() => '');
    return (await this.apiKeys.findCaller(key.trim())) === null;
  }

  private async createKey(userId: string): Promise<void> {
    const scopes = ['claude:execute', 'claude:read'] as const;
    const { key } = await this.apiKeys.issue(userId, {
      name: 'First key',
      scopes: [...scopes],
      expiresAt: null,
    });
    await this.write(API_KEY_FILE, key);
  }

  private async write(name: string, secret: string): Promise<void> {
    await mkdir(this.config.DATA_DIR, { recursive: true, mode: 0o700 });
    await writeFile(join(this.config.DATA_DIR, name), `${secret}\n`, { mode: 0o600 });
  }
}
