import 'reflect-metadata';
import { explainStartFailure } from './explain-start-failure.js';
import { environmentOfProcess, readConfig, requireStores } from './platform/config/config.js';
import { serve } from './serve.js';
import { StopSignals } from './stop-signals.js';

// What an image runs (`npm run start:prod`): installs, builds and embeds nothing.
try {
  const stop = new StopSignals();
  const config = requireStores(readConfig(environmentOfProcess()));
  await serve(config, stop, {
    onReady: ({ url }) =>
      console.log(`Claude Runner listens on ${url}${config.demo ? ', in DEMO MODE' : ''}`),
  });
} catch (error) {
  console.error(explainStartFailure(error));
  process.exitCode = 1;
}
process.exit();
