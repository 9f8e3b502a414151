import { z } from 'zod';

export const IdempotencyKeySchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'must have 1 to 255 characters of visible ASCII')
  .meta({
    description:
      'Names the request for 24 hours: sent again by the same user, over whichever route or transport, it joins the process that it made',
  });
