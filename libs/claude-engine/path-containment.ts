import { type HookCallbackMatcher, type PreToolUseHookInput } from '@anthropic-ai/claude-agent-sdk';
import { lstat, realpath } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, resolve, sep } from 'node:path';
import { ANSWER_TOOL, FILE_TOOLS, TODO_TOOLS } from './supported-tools.js';

type FileTool = (typeof FILE_TOOLS)[number];

/** Where a file tool's input names a file or a folder. Left out, it is the workspace. */
const PATH_FIELDS: Record<FileTool, readonly string[]> = {
  Read: ['file_path'],
  Write: ['file_path'],
  Edit: ['file_path'],
  NotebookEdit: ['notebook_path'],
  Glob: ['path'],
  Grep: ['path'],
};
/** Where it holds a pattern that is matched against paths. */
const PATTERN_FIELDS: Partial<Record<FileTool, readonly string[]>> = { Glob: ['pattern'], Grep: ['glob'] };

/**
 * A hook that every tool call passes before it runs, whatever the permission rules say: file tools stay inside the
 * workspace, and no other tool runs but the list of what is to do, and the answer. If the hook itself fails, the call is blocked.
 * @param workspace absolute, free of symlinks
 */
export function containmentHook(workspace: string): HookCallbackMatcher {
  return {
    onFailure: 'block',
    hooks: [
      async (hook) => {
        const { tool_name: tool, tool_input: input } = hook as PreToolUseHookInput;
        const refusal = await refusalOf({ tool, input, workspace });
        if (refusal === null) return {};
        return {
          hookSpecificOutput: {
            hookEventName: 'PreToolUse',
            permissionDecision: 'deny',
            permissionDecisionReason: refusal,
          },
        };
      },
    ],
  };
}

/** Why a tool call may not run, in words for the model; null if it may, as far as files go. */
export async function refusalOf(call: {
  tool: string;
  input: unknown;
  workspace: string;
}): Promise<string | null> {
  const { tool, workspace } = call;
  if (isOneOf(TODO_TOOLS, tool) || tool === ANSWER_TOOL) return null;
  if (!isOneOf(FILE_TOOLS, tool)) return `The tool ${tool} is not available.`;
  const input = Object(call.input) as Record<string, unknown>;
  for (const field of PATH_FIELDS[tool]) {
    const path = input[field];
    if (path === undefined || path === null) continue;
    if (typeof path !== 'string' || !(await isContained(path, workspace))) return OUTSIDE;
  }
  for (const field of PATTERN_FIELDS[tool] ?? []) {
    const pattern = input[field];
    if (pattern === undefined || pattern === null) continue;
    if (typeof pattern !== 'string' || !(await isPatternContained(pattern, workspace))) return OUTSIDE;
  }
  return null;
}

const OUTSIDE = 'Only files in the working directory may be used, by plain paths.';

function isOneOf<T extends string>(names: readonly T[], name: string): name is T {
  return (names as readonly string[]).includes(name);
}

/**
 * Whether a path, as the CLI would read it, leads into the workspace. Paths that the CLI or the system might read in
 * another way than we do (`~`, `..`, blanks around them, NUL) do not, nor do links that lead nowhere.
 */
export async function isContained(path: string, workspace: string): Promise<boolean> {
  if (!isPlain(path)) return false;
  for (const spelling of new Set([path, path.normalize('NFC')])) {
    const real = await realPathOf(resolve(workspace, spelling));
    if (real === null || (real !== workspace && !real.startsWith(workspace + sep))) return false;
  }
  return true;
}

/** Whether a glob pattern can only match in the workspace. */
async function isPatternContained(pattern: string, workspace: string): Promise<boolean> {
  if (!isPlain(pattern) || /\.\.|[{,]\s*[/~]/.test(pattern)) return false;
  const parts = pattern.split('/');
  const firstWild = parts.findIndex((part) => /[*?[\]{}()!\\]/.test(part));
  const fixed = (firstWild === -1 ? parts : parts.slice(0, firstWild)).join('/');
  if (fixed === '') return !isAbsolute(pattern);
  return isContained(fixed, workspace);
}

function isPlain(path: string): boolean {
  if (path === '' || path !== path.trim() || path.includes('\0') || path.startsWith('~')) return false;
  return !path.split('/').includes('..');
}

/** The path without symlinks. What does not exist yet keeps its name below its real parent; null if it has none. */
async function realPathOf(path: string): Promise<string | null> {
  try {
    return await realpath(path);
  } catch (error) {
    if (!isMissing(error) || (await isLink(path))) return null;
    const parent = dirname(path);
    const realParent = parent === path ? null : await realPathOf(parent);
    return realParent === null ? null : join(realParent, basename(path));
  }
}

async function isLink(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isSymbolicLink();
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
