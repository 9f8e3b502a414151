/** Tools that read or write files. */
export const FILE_TOOLS = ['Read', 'Write', 'Edit', 'NotebookEdit', 'Glob', 'Grep'] as const;

/** Claude's list of what is to do: kept in the launch's config folder, gone with it. */
export const TODO_TOOLS = ['TaskCreate', 'TaskGet', 'TaskUpdate', 'TaskList'] as const;

/** How the model gives an answer by a schema: it is there where a request has one, and does nothing else. */
export const ANSWER_TOOL = 'StructuredOutput';

/** Tools that run programs, or agents that may: only a sandbox contains those. */
const PROGRAM_TOOLS = ['Bash', 'Task', 'TaskStop'] as const;

/** Every tool that a run may have. Which ones an engine offers depends on what contains them. */
export const SUPPORTED_TOOLS = [...FILE_TOOLS, ...TODO_TOOLS, ...PROGRAM_TOOLS] as const;
export type SupportedTool = (typeof SUPPORTED_TOOLS)[number];

/** What is offered without a sandbox. A hook keeps the paths inside the workspace: see path-containment.ts. */
export const CONTAINED_TOOLS: readonly SupportedTool[] = [...FILE_TOOLS, ...TODO_TOOLS];

/** What cannot be allowed where nothing is to be changed. */
export const CHANGING_TOOLS: ReadonlySet<string> = new Set([
  'Write',
  'Edit',
  'NotebookEdit',
  'Bash',
] satisfies SupportedTool[]);
