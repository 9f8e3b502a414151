/** Tools that read or write files. A hook keeps their paths inside the workspace: see path-containment.ts. */
export const FILE_TOOLS = ['Read', 'Write', 'Edit', 'NotebookEdit', 'Glob', 'Grep'] as const;

/** Claude's list of what is to do: kept in the launch's config folder, gone with it. */
export const TODO_TOOLS = ['TaskCreate', 'TaskGet', 'TaskUpdate', 'TaskList'] as const;

/**
 * Every tool that a run may have. What runs commands, reaches the network or starts agents is not among them: nothing
 * contains those without a sandbox.
 */
export const SUPPORTED_TOOLS = [...FILE_TOOLS, ...TODO_TOOLS] as const;
export type SupportedTool = (typeof SUPPORTED_TOOLS)[number];

const supported: ReadonlySet<string> = new Set(SUPPORTED_TOOLS);

/** Whether a run may have the tool of this name. Patterns such as `Write(src/**)` are no names. */
export function isSupportedTool(name: string): name is SupportedTool {
  return supported.has(name);
}

/** Tools that change files. */
export const WRITING_TOOLS: ReadonlySet<string> = new Set([
  'Write',
  'Edit',
  'NotebookEdit',
] satisfies SupportedTool[]);
