// Prisma: https://www.prisma.io/docs/orm/reference/error-reference; SQLSTATE classes 08 (connection) and 57P (operator
// intervention): https://www.postgresql.org/docs/18/errcodes-appendix.html
const OUTAGE_CODES = new Set([
  'P1001',
  'P1002',
  'P1008',
  'P1017',
  'P2024',
  'P2028',
  'ECONNREFUSED',
  'ECONNRESET',
  'ETIMEDOUT',
  'EPIPE',
  'ENOTFOUND',
  'NR_CLOSED',
]);

// What the drivers of both give no code.
const OUTAGE_MESSAGE = new RegExp(
  [
    "Can't reach database server",
    'Connection (is closed|terminated)',
    'Server has closed the connection',
    'Command timed out',
    "Stream isn't writeable",
  ].join('|'),
  'i',
);

/** Whether PostgreSQL or Redis was away, as opposed to having refused what it was asked. */
export function isStoreOutage(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  const { code } = thrown as { code?: unknown };
  if (typeof code === 'string' && (OUTAGE_CODES.has(code) || /^(08|57P)/.test(code))) return true;
  return OUTAGE_MESSAGE.test(thrown.message) || isStoreOutage(thrown.cause);
}
