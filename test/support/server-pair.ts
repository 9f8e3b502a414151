import { ApiClient } from './api-client.js';
import { startBeside, startTestServer, type TestServer } from './test-server.js';
import { signInAsNewUser } from './users.js';

export interface ServerPair {
  runner: TestServer;
  /** At the server that runs processes. */
  owner: ApiClient;
  /** The owner, at a server that serves and runs nothing. */
  elsewhere: ApiClient;
  stop: () => Promise<void>;
}

/** A server, another one beside it that runs nothing, and a user of both. */
export async function startServerPair(environment: NodeJS.ProcessEnv): Promise<ServerPair> {
  const runner = await startTestServer(environment);
  const api = await startBeside(runner);
  const owner = await signInAsNewUser(runner);
  const stop = async () => {
    api.hurry();
    await api.close();
    await runner.stop();
  };
  return { runner, owner, elsewhere: new ApiClient(api.url, owner.token), stop };
}
