/** A CLI for each run, gone with it: what tests that count CLIs look for. Those of spares and kept sessions say otherwise. */
export const NO_SUPPLY = { CLAUDE_SPARES: '0', CLAUDE_SESSION_IDLE_MS: '0' };
