/** Every kind of error that a caller can meet, over HTTP and over sockets alike. */
export const ERROR_CATALOGUE = {
  bad_request: { status: 400, title: 'The request is malformed', retryable: false },
  invalid_json: { status: 400, title: 'The body is not JSON', retryable: false },
  validation_failed: { status: 400, title: 'The request does not have the right shape', retryable: false },
  cursor_invalid: { status: 400, title: 'The cursor is not one that this list gave', retryable: false },
  unauthenticated: { status: 401, title: 'Credentials are missing or not valid', retryable: false },
  credentials_wrong: { status: 401, title: 'The e-mail address or the password is wrong', retryable: false },
  forbidden: { status: 403, title: 'The credentials do not allow this', retryable: false },
  route_not_found: { status: 404, title: 'There is no such route', retryable: false },
  process_not_found: { status: 404, title: 'There is no such process', retryable: false },
  session_not_found: { status: 404, title: 'There is no such session', retryable: false },
  api_key_not_found: { status: 404, title: 'There is no such API key', retryable: false },
  method_not_allowed: { status: 405, title: 'The path does not take this method', retryable: false },
  not_acceptable: {
    status: 406,
    title: 'The route cannot answer in the type that was asked for',
    retryable: false,
  },
  process_not_ended: { status: 409, title: 'The process has not ended', retryable: false },
  session_busy: { status: 409, title: 'A process of the session is not over', retryable: true },
  events_pruned: { status: 410, title: 'This part of the log is gone', retryable: false },
  body_too_large: { status: 413, title: 'The body is too large', retryable: false },
  media_type_unsupported: { status: 415, title: 'The body has a type that is not read', retryable: false },
  not_supported_yet: { status: 422, title: 'This is planned and not supported yet', retryable: false },
  idempotency_key_reused: {
    status: 422,
    title: 'The idempotency key stands for another request',
    retryable: false,
  },
  tool_not_allowed: { status: 422, title: 'The tool is not one that this server offers', retryable: false },
  workspace_not_copied: { status: 422, title: 'The files of the session cannot be copied', retryable: false },
  queue_full: { status: 429, title: 'The queue is full', retryable: true },
  internal: { status: 500, title: 'The server failed', retryable: false },
  unavailable: { status: 503, title: 'The server cannot do this at the moment', retryable: true },
  draining: { status: 503, title: 'The server is shutting down', retryable: true },
} as const satisfies Record<string, { status: number; title: string; retryable: boolean }>;

export type ErrorCode = keyof typeof ERROR_CATALOGUE;
