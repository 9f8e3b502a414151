import 'reflect-metadata';
import { ConfigError, environmentOfProcess, readConfig, requireStores } from './platform/config/config.js';
import { serveUntilSignalled } from './serve.js';

// The one entry of an image: installs, builds and embeds nothing.
try {
  await serveUntilSignalled(requireStores(readConfig(environmentOfProcess())), {
    onReady: ({ url }) => console.log(`Claude Runner listens on ${url}`),
  });
} catch (error) {
  console.error(error instanceof ConfigError ? error.message : error);
  process.exitCode = 1;
}
process.exit();
