import { type ApiTraffic } from './key-proxy.js';

/** What the operator may want to know of. May hold paths and stderr: for a log, never for a client. */
export type EngineNotice =
  | { kind: 'launched'; launchId: string; pid: number }
  | { kind: 'launch_failed'; launchId: string | null; reason: string }
  /** There can be no sandbox, so that only file tools are offered. */
  | { kind: 'no_sandbox'; reason: string }
  /** There is a sandbox, but what tools start in it is not kept from the CLI: it reaches its output and its token. */
  | { kind: 'programs_not_separated'; reason: string }
  /** Servers of tools that no launch reaches. */
  | { kind: 'mcp_servers_left_out'; servers: string[]; reason: string }
  /** One that a launch has, but its CLI does not. Told once for each launch. */
  | { kind: 'mcp_server_failed'; launchId: string; server: string; status: string }
  /** What a launch has asked of the Messages API. */
  | ({ kind: 'launch_traffic'; launchId: string } & ApiTraffic)
  /** It asked the Messages API for something that no CLI needs, or that nobody knows here. Told once for each launch. */
  | { kind: 'request_forbidden'; launchId: string; reason: string }
  /**
   * A CLI was asked, and the model's first word came from it: in milliseconds since 1970, with fractions. In between, what it
   * asked has waited for leave for so long, which is not the CLI's time.
   */
  | { kind: 'first_word'; launchId: string; askedAt: number; heldMs: number; spokeAt: number }
  /** The CLI ended without a result, and nobody had told it to. */
  | {
      kind: 'cli_died';
      launchId: string;
      exitCode: number | null;
      signal: string | null;
      stderr: string;
      /** How its stream broke off, where it did. */
      reason: string | null;
    }
  /** Processes of a launch outlived its CLI and were killed; `left` could not be within a second. */
  | { kind: 'remains_killed'; launchId: string; killed: number[]; left: number[] }
  | { kind: 'cleanup_failed'; launchId: string | null; reason: string }
  /** A dead server's launch was found: see reapOrphans. */
  | { kind: 'orphan_reaped'; launchId: string; pids: number[] }
  /** The guard had not heard of us for too long, and has killed these. */
  | { kind: 'guard_struck'; launchIds: string[] }
  /** The guard's process ended or could not be started. Another is started. */
  | { kind: 'guard_lost'; reason: string };

/** A launch whose CLI, or whose folder, is not gone yet. */
export interface LiveLaunch {
  launchId: string;
  /** Null before the CLI is started. */
  pid: number | null;
  /** Null for a spare. */
  workspaceKey: string | null;
}

/** Shorter ones are words like any other. */
const SHORTEST_SECRET = 6;

/** Passes notices on, without these in their texts: a CLI may say anything. */
export function withoutSecrets(
  tell: (notice: EngineNotice) => void,
  secrets: readonly string[],
): (notice: EngineNotice) => void {
  const hidden = secrets.filter((secret) => secret.length >= SHORTEST_SECRET);
  if (hidden.length === 0) return tell;
  const redacted = (value: unknown) =>
    typeof value === 'string'
      ? hidden.reduce((text, secret) => text.replaceAll(secret, '[secret]'), value)
      : value;
  return (notice) => {
    const fields = Object.entries(notice).map(([name, value]) => [name, redacted(value)] as const);
    tell(Object.fromEntries(fields) as unknown as EngineNotice);
  };
}
