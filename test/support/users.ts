import { v7 as uuid } from 'uuid';
import { hashPassword } from '../../src/users/passwords.js';
import { ApiClient } from './api-client.js';
import type { TestServer } from './test-server.js';

const PASSWORD = 'the password of a user';

/** Signs in as a user without any role, who is made directly in the database: nobody can register yet. */
export async function signInAsNewUser({ stores, url }: TestServer): Promise<ApiClient> {
  const id = uuid();
  const email = `${id}@claude-runner.local`;
  await stores.query('INSERT INTO users (id, email, password_hash) VALUES ($1, $2, $3)', [
    id,
    email,
    await hashPassword(PASSWORD),
  ]);
  return ApiClient.login(url, email, PASSWORD);
}

/** Whose access token it is. */
export function userIdOf({ token }: ApiClient): string {
  const [, claims = ''] = (token ?? '').split('.');
  return (JSON.parse(Buffer.from(claims, 'base64url').toString()) as { sub: string }).sub;
}
