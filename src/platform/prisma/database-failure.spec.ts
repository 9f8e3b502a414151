import { hasDoneNothing } from './database-failure.js';

const failure = ({ code, message = '' }: { code?: string; message?: string }) =>
  Object.assign(new Error(message), { code });

describe('that the database has done nothing of a write that failed', () => {
  it.each([
    ...['ECONNREFUSED', 'P1001', 'P2024', '53300', '40P01', '40001'].map((code) => ({ code })),
    { message: 'timeout exceeded when trying to connect' },
  ])('is certain after %o', (error) => {
    expect(hasDoneNothing(new Error('It failed.', { cause: failure(error) }))).toBe(true);
  });

  it.each([
    ...['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'P1008', 'P1017', 'P2028', '57P01', '25P03'].map((code) => ({
      code,
    })),
    ...['Query read timeout', 'Connection terminated'].map((message) => ({ message })),
  ])('is not certain after %o', (error) => {
    expect(hasDoneNothing(failure(error))).toBe(false);
  });
});
