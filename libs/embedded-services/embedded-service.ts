/** A data server that listens on loopback only, asks for a password and outlives the process that started it. */
export interface EmbeddedService {
  /** With user, password and (PostgreSQL) database: hand it on, never log it. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** It was running already (its starter was killed) and was taken over. */
  readonly adopted: boolean;
  /** Resolves when the server's process has ended; calling it again does nothing. */
  stop(): Promise<void>;
}

export interface EmbeddedServiceOptions {
  /** Holds the data, the log and the password; made with mode 0700. One service a directory. */
  directory: string;
  /** Survive a power cut. `false` (for tests) trades that for speed. Default `true`. */
  durable?: boolean;
  /** One line a step, and only when something happens that takes time or changes something. */
  onProgress?: (line: string) => void;
  /** Gives the start up; nothing it started is left running. No effect once the service is ready. */
  signal?: AbortSignal;
}
