import type { z } from 'zod';
import { type JsonSchema, toComponents } from './api-schemas.js';
import {
  AnswerSchema,
  CompleteNoticeSchema,
  ErrorNoticeSchema,
  ExecuteMessageSchema,
  PermissionMessageSchema,
  ProcessMessageSchema,
  QueuedNoticeSchema,
  StatusMessageSchema,
  SteeringMessageSchema,
} from './claude/claude.schemas.js';
import { PermissionRequestedEventSchema, ProcessEventSchema } from './processes/process-events.schemas.js';

interface Message {
  event: string;
  schema: z.core.$ZodType;
  summary: string;
}

/** What clients send; each is answered by its ack. */
const RECEIVED: Message[] = [
  {
    event: 'claude:execute',
    schema: ExecuteMessageSchema,
    summary: 'Submits a prompt; the socket follows the process',
  },
  {
    event: 'claude:status',
    schema: StatusMessageSchema,
    summary: 'The process; with `after` the socket follows it from there',
  },
  { event: 'claude:unfollow', schema: ProcessMessageSchema, summary: 'Ends a follow' },
  { event: 'claude:cancel', schema: ProcessMessageSchema, summary: 'Cancels the process' },
  {
    event: 'claude:permission:respond',
    schema: PermissionMessageSchema,
    summary: 'Answers what the process has asked for',
  },
  {
    event: 'claude:message',
    schema: SteeringMessageSchema,
    summary: 'Says something further to the process',
  },
  {
    event: 'claude:interrupt',
    schema: ProcessMessageSchema,
    summary: 'Stops the turn of the process',
  },
];

const SENT: Message[] = [
  {
    event: 'claude:queued',
    schema: QueuedNoticeSchema,
    summary: 'The place in the queue, and again when it changes',
  },
  { event: 'claude:progress', schema: ProcessEventSchema, summary: 'Every entry of the log, in order' },
  {
    event: 'claude:complete',
    schema: CompleteNoticeSchema,
    summary: 'The process was completed or cancelled',
  },
  {
    event: 'claude:permission',
    schema: PermissionRequestedEventSchema,
    summary: 'The process asks for permission; the same as the entry of its log',
  },
  {
    event: 'claude:error',
    schema: ErrorNoticeSchema,
    summary: 'The process failed, or a message without an ack was refused',
  },
];

const CHANNEL = '#/channels/socket';

/** AsyncAPI 3.0 of the Socket.IO gateway, from the zod schemas that it uses itself. */
export function buildAsyncApi() {
  const schemas: Record<string, JsonSchema> = {};
  const payload = (schema: z.core.$ZodType, io: 'input' | 'output') => {
    const converted = toComponents(schema, io);
    Object.assign(schemas, converted.components);
    return converted.schema;
  };
  const messages = Object.fromEntries([
    ...RECEIVED.map(({ event, schema, summary }) => [
      nameOf(event),
      { name: event, title: event, summary, payload: payload(schema, 'input') },
    ]),
    ...SENT.map(({ event, schema, summary }) => [
      nameOf(event),
      { name: event, title: event, summary, payload: payload(schema, 'output') },
    ]),
    [
      'answer',
      {
        name: 'ack',
        title: 'ack',
        summary: 'The answer to a message',
        payload: payload(AnswerSchema, 'output'),
      },
    ],
  ]) as Record<string, unknown>;
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Claude Runner',
      version: '1',
      description:
        'Socket.IO, namespace `/`, path `/socket.io`, `auth: { token }` with an access token or an API key.',
    },
    servers: { runner: { host: 'localhost:3000', protocol: 'ws', pathname: '/socket.io' } },
    channels: { socket: { address: '/', title: 'Namespace /', messages } },
    operations: Object.fromEntries([
      ...RECEIVED.map(({ event, summary }) => [
        nameOf(event),
        { ...operation('receive', event, summary), reply: REPLY },
      ]),
      ...SENT.map(({ event, summary }) => [nameOf(event), operation('send', event, summary)]),
    ]) as Record<string, unknown>,
    components: {
      schemas,
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', description: 'In `auth: { token }` of the handshake' },
      },
    },
  };
}

const REPLY = { channel: { $ref: CHANNEL }, messages: [{ $ref: `${CHANNEL}/messages/answer` }] };

const operation = (action: 'send' | 'receive', event: string, summary: string) => ({
  action,
  summary,
  channel: { $ref: CHANNEL },
  messages: [{ $ref: `${CHANNEL}/messages/${nameOf(event)}` }],
  security: [{ $ref: '#/components/securitySchemes/token' }],
});

/** `claude:execute` → `claudeExecute` */
const nameOf = (event: string) => event.replace(/:(\w)/g, (_, letter: string) => letter.toUpperCase());
