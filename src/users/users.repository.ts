import { Injectable } from '@nestjs/common';
import type { User } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';

@Injectable()
export class UsersRepository {
  constructor(private readonly prisma: PrismaService) {}

  findByEmail(email: string): Promise<User | null> {
    return this.prisma.user.findUnique({ where: { email: email.toLowerCase() } });
  }

  findById(id: string): Promise<User | null> {
    return this.prisma.user.findUnique({ where: { id } });
  }

  findFirstAdministrator(): Promise<User | null> {
    return this.prisma.user.findFirst({ where: { role: 'admin' }, orderBy: { createdAt: 'asc' } });
  }

  /** @returns whether this call made it: another server may have been first */
  async createAdministrator(user: { id: string; email: string; passwordHash: string }): Promise<boolean> {
    const email = user.email.toLowerCase();
    const { count } = await this.prisma.user.createMany({
      data: [{ ...user, email, role: 'admin' }],
      skipDuplicates: true,
    });
    return count === 1;
  }
}
