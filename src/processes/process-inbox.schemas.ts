import { z } from 'zod';
import { promptText, text } from './processes.schemas.js';
import { isStorable } from './text-safety.js';

const KIB = 1024;
const MAX_INPUT_BYTES = 1024 * KIB;

const updatedInput = z.record(z.string(), z.unknown()).superRefine((value, context) => {
  const json = JSON.stringify(value);
  const refuse = (code: string, message: string) => {
    context.addIssue({ code: 'custom', message, params: { code }, continue: false });
  };
  if (Buffer.byteLength(json) > MAX_INPUT_BYTES)
    refuse('too_big', `must not have more than ${MAX_INPUT_BYTES} bytes`);
  else if (!isStorable(json)) refuse('not_text', 'must not hold U+0000 or half of a surrogate pair');
});

export const permissionAnswerFields = {
  decision: z.enum(['allow', 'deny']),
  message: text(8 * KIB)
    .optional()
    .meta({ description: 'With `deny`: what the model is told' }),
  updatedInput: updatedInput.optional().meta({
    description: 'With `allow`: the input of the tool, in place of the whole of the one that was asked for',
  }),
};

/** A field that would have no effect is refused, not passed over. */
export function refuseIdleFields(
  { decision, message, updatedInput: input }: PermissionAnswerRequest,
  context: z.core.$RefinementCtx,
): void {
  const refuse = (field: string, with_: string) => {
    const params = { code: 'no_effect' };
    context.addIssue({ code: 'custom', path: [field], message: `goes with ${with_} alone`, params });
  };
  if (decision === 'allow' && message !== undefined) refuse('message', 'deny');
  if (decision === 'deny' && input !== undefined) refuse('updatedInput', 'allow');
}

export const PermissionAnswerRequestSchema = z
  .strictObject(permissionAnswerFields)
  .superRefine(refuseIdleFields)
  .meta({ id: 'PermissionAnswerRequest' });

export interface PermissionAnswerRequest {
  decision: 'allow' | 'deny';
  message?: string | undefined;
  updatedInput?: Record<string, unknown> | undefined;
}

export const steeringMessageFields = {
  text: promptText.meta({ description: '1 character to 1 MiB. It reaches the model as it was sent' }),
};

export const SteeringMessageRequestSchema = z
  .strictObject(steeringMessageFields)
  .meta({ id: 'SteeringMessageRequest' });
export type SteeringMessageRequest = z.output<typeof SteeringMessageRequestSchema>;

export const PermissionParametersSchema = z.strictObject({ id: z.uuid(), permissionId: z.uuid() });
export type PermissionParameters = z.output<typeof PermissionParametersSchema>;
