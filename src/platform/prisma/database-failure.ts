// Prisma: https://www.prisma.io/docs/orm/reference/error-reference
const OUTAGE_CODES = new Set([
  'P1001',
  'P1002',
  'P1008',
  'P1017',
  'P2024',
  'P2028',
  'P2037',
  'ECONNREFUSED',
  'ECONNRESET',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'EPIPE',
  'ENOTFOUND',
  'NR_CLOSED',
]);

// SQLSTATE: connections (08), resources (53), the operator or a timeout (57), the system (58), a lock that was not to be had, a
// standby, a transaction that was left alone for too long: https://www.postgresql.org/docs/18/errcodes-appendix.html
const OUTAGE_STATES = /^(08...|53...|57...|58...|55P03|25006|25P03)$/;

/** What the drivers say where there was no connection at all. */
const NO_CONNECTION = [
  "Can't reach database server",
  'timeout exceeded when trying to connect',
  'Cannot use a pool after calling end',
];

// What the drivers of both give no code.
const OUTAGE_MESSAGE = new RegExp(
  [
    'Connection (is closed|terminated)',
    'Server has closed the connection',
    'is not queryable',
    'Query read timeout',
    'timeout expired',
    'Command timed out',
    "Stream isn't writeable",
    ...NO_CONNECTION,
  ].join('|'),
  'i',
);

/** Whether PostgreSQL or Redis was away, as opposed to having refused what it was asked. */
export function isStoreOutage(thrown: unknown): boolean {
  return causes(thrown).some(
    ({ code, message }) =>
      (code !== null && (OUTAGE_CODES.has(code) || OUTAGE_STATES.test(code))) || OUTAGE_MESSAGE.test(message),
  );
}

/** Whether a deadlock or a failed serialization has undone it. */
const wasUndone = (thrown: unknown) =>
  causes(thrown).some(({ code }) => code === '40P01' || code === '40001' || code === 'P2034');

/** Whether the same write may succeed when it is tried again: an outage, a deadlock, a failed serialization. */
export const isTransient = (thrown: unknown) => isStoreOutage(thrown) || wasUndone(thrown);

const NOT_CONNECTED_CODES = /^(P1001|P2024|ECONNREFUSED|ENOTFOUND|EAI_AGAIN|53300|57P03)$/;
const NOT_CONNECTED_MESSAGE = new RegExp(NO_CONNECTION.join('|'), 'i');

/** Whether it is certain that the database has done nothing of a write that failed: it was undone, or had no connection. */
export const hasDoneNothing = (thrown: unknown) =>
  wasUndone(thrown) ||
  causes(thrown).some(
    ({ code, message }) =>
      (code !== null && NOT_CONNECTED_CODES.test(code)) || NOT_CONNECTED_MESSAGE.test(message),
  );

/** Whether a unique index refused the write. */
export const isUniqueViolation = (thrown: unknown) =>
  causes(thrown).some(({ code }) => code === '23505' || code === 'P2002');

interface Cause {
  code: string | null;
  message: string;
}

/** The error and what lies beneath it: Prisma keeps what the driver said in `meta`. */
function causes(thrown: unknown, depth = 0): Cause[] {
  if (typeof thrown !== 'object' || thrown === null || depth > MAX_DEPTH) return [];
  const { code, originalCode, message, originalMessage, cause, meta } = thrown as Record<string, unknown>;
  const driverError = (meta as { driverAdapterError?: unknown } | undefined)?.driverAdapterError;
  return [
    {
      code: textOf(originalCode ?? code),
      message: `${textOf(message) ?? ''} ${textOf(originalMessage) ?? ''}`,
    },
    ...causes(cause, depth + 1),
    ...causes(driverError, depth + 1),
  ];
}

const MAX_DEPTH = 8;
const textOf = (value: unknown) => (typeof value === 'string' ? value : null);
