import { StatementNames } from './statement-names.js';

it('names nothing that has no plan', () => {
  const names = new StatementNames();
  expect(['COMMIT', 'BEGIN', ' ROLLBACK'].map((sql) => names.of({ sql }))).toEqual(['', '', '']);
});

it('names each text once, and no more of them than a connection should keep', () => {
  const names = new StatementNames();
  const given = Array.from({ length: 200 }, (_, index) => names.of({ sql: `SELECT ${index}` }));
  expect(new Set(given).size).toBe(200);
  expect(given).not.toContain('');
  expect(names.of({ sql: 'SELECT 200' })).toBe('');
  expect(names.of({ sql: 'SELECT 7' })).toBe(given[7]);
});
