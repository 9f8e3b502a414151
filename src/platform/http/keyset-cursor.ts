import { z } from 'zod';
import { AppError } from '../errors/app-error.js';
import { moment } from './common.schemas.js';

/** Where a list that is ordered by (createdAt, id), newest first, goes on. */
export interface KeysetPosition {
  createdAt: Date;
  id: string;
}

const PositionSchema = z.tuple([moment, z.uuid()]);

const encodeCursor = ({ createdAt, id }: KeysetPosition): string =>
  Buffer.from(JSON.stringify([createdAt.toISOString(), id])).toString('base64url');

/** @throws AppError `cursor_invalid` */
export function decodeCursor(cursor: string): KeysetPosition {
  try {
    const [createdAt, id] = PositionSchema.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString()));
    return { createdAt: new Date(createdAt), id };
  } catch (error) {
    throw new AppError('cursor_invalid', 'Use a nextCursor of this list, unchanged.', { cause: error });
  }
}

/** Prisma's condition for what comes after the cursor. */
export function afterCursor(position: KeysetPosition | null) {
  if (!position) return {};
  const { createdAt, id } = position;
  return { OR: [{ createdAt: { lt: createdAt } }, { createdAt, id: { lt: id } }] };
}

export const NEWEST_FIRST = [{ createdAt: 'desc' }, { id: 'desc' }] as const;

/** Cuts what was read with one row more than asked for into a page. */
export function toPage<Row extends KeysetPosition, Item>(
  rows: Row[],
  limit: number,
  toItem: (row: Row) => Item,
) {
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    items: page.map(toItem),
    nextCursor: rows.length > limit && last ? encodeCursor(last) : null,
  };
}
