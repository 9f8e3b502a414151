import { Injectable } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import { hashPassword, verifyPassword } from './passwords.js';
import { UsersRepository } from './users.repository.js';

export interface Account {
  id: string;
  email: string;
  isAdministrator: boolean;
}

@Injectable()
export class UsersService {
  constructor(private readonly users: UsersRepository) {}

  /** The account, if the password is its own and it is not disabled. Takes as long for an address that nobody has. */
  async findByCredentials(email: string, password: string): Promise<Account | null> {
    const user = await this.users.findByEmail(email);
    const matches = await verifyPassword(user?.passwordHash ?? null, password);
    return user && matches && user.disabledAt === null ? toAccount(user) : null;
  }

  async findActive(id: string): Promise<Account | null> {
    const user = await this.users.findById(id);
    return user?.disabledAt === null ? toAccount(user) : null;
  }

  async findAdministrator(): Promise<Account | null> {
    const user = await this.users.findFirstAdministrator();
    return user && toAccount(user);
  }

  /** @returns the account, or null where another server made it at the same moment */
  async createAdministrator(email: string, password: string): Promise<Account | null> {
    const id = uuid();
    const made = await this.users.createAdministrator({
      id,
      email,
      passwordHash: await hashPassword(password),
    });
    return made ? { id, email, isAdministrator: true } : null;
  }
}

const toAccount = (user: { id: string; email: string; role: string }): Account => ({
  id: user.id,
  email: user.email,
  isAdministrator: user.role === 'admin',
});
