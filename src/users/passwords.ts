import { randomBytes } from 'node:crypto';
import { hash, verify } from '@node-rs/argon2';

const ARGON2ID = 2; // `Algorithm.Argon2id`, a const enum that cannot be imported under isolatedModules

// OWASP's second choice of parameters, for machines with little memory to spare:
// https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id
const PARAMETERS = { algorithm: ARGON2ID, memoryCost: 19_456, timeCost: 2, parallelism: 1 };

let standIn: Promise<string> | undefined;

/** @returns a PHC string */
export const hashPassword = (password: string): Promise<string> => hash(password, PARAMETERS);

/** A null hash takes the time of a real one and never matches, so that answers do not tell which accounts exist. */
export async function verifyPassword(passwordHash: string | null, password: string): Promise<boolean> {
  standIn ??= hashPassword(randomBytes(16).toString('hex'));
  const matches = await verify(passwordHash ?? (await standIn), password);
  return matches && passwordHash !== null;
}
