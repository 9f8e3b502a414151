import { ApiRun, type ApiSettings, unavailable } from './api-run.js';
import { type EngineRequest, type RunContext } from './claude-engine.js';
import { type EngineEvent } from './engine-event.js';
import { within } from './launch-end.js';
import { NO_OUTCOME } from './open-message.js';

/** A run that nobody reads any more does not come to its end. */
const CLOSE_PATIENCE_MS = 2000;
const NEEDS_TOOLS = 'This needs tools, and the Messages API alone has none: only the Claude CLI runs it.';

/**
 * Answers by the Messages API, without a CLI and so without tools. What needs them is refused, never answered without them; a
 * request that says nothing of tools needs none.
 */
export class ApiEngine {
  private readonly runs = new Map<ApiRun, Promise<void>>();
  private isClosed = false;

  constructor(private readonly settings: ApiSettings) {}

  async *run(request: EngineRequest, context: RunContext): AsyncGenerator<EngineEvent, void, undefined> {
    if (needsTools(request)) {
      yield { type: 'ended', ending: { kind: 'failed', error: unavailable(NEEDS_TOOLS), ...NO_OUTCOME } };
      return;
    }
    const run = new ApiRun(request, context, this.settings);
    let settle: () => void = () => undefined;
    this.runs.set(run, new Promise((resolve) => (settle = resolve)));
    if (this.isClosed) run.stop('shutdown');
    try {
      yield* run.events();
    } finally {
      this.runs.delete(run);
      settle();
    }
  }

  async close(): Promise<void> {
    this.isClosed = true;
    for (const run of this.runs.keys()) run.stop('shutdown');
    await within(CLOSE_PATIENCE_MS, Promise.all(this.runs.values()));
  }
}

/** A plan is made by looking around. */
function needsTools({ tools, allowedTools = [], permissionMode }: EngineRequest): boolean {
  if (permissionMode === 'plan') return true;
  return tools ? tools.length > 0 : allowedTools.length > 0 || permissionMode !== 'deny';
}
