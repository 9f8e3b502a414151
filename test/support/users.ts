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
