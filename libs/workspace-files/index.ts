export {
  type OpenedFile,
  sweepStaging,
  Workspace,
  type WorkspaceEntry,
  type WorkspaceQuota,
} from './workspace.js';
export { WorkspaceFileError, type WorkspaceFileFault } from './workspace-file-error.js';
export { pathFault } from './workspace-path.js';
export {
  changesBetween,
  type FileChange,
  measureWorkspace,
  takeSnapshot,
  type WorkspaceSnapshot,
} from './workspace-snapshot.js';
