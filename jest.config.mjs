// Everything is compiled to CommonJS inside Jest (no --experimental-vm-modules): the only mode that runs on Node 20, 22,
// 24 and 26 alike. `jest` must be the global: @swc/jest does not hoist jest.mock() of an imported one.
const swc = (parser) => [
  '@swc/jest',
  {
    swcrc: false,
    sourceMaps: 'inline',
    module: { type: 'commonjs' },
    jsc: {
      target: 'es2022',
      parser,
      transform: { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false },
      keepClassNames: true,
    },
  },
];

// Nest 12, the Agent SDK and a few of their dependencies ship ES modules only.
const esmOnly = [
  '@nestjs',
  '@anthropic-ai/claude-agent-sdk',
  'uuid',
  'file-type',
  'load-esm',
  'strtok3',
  'token-types',
  'uint8array-extras',
  '@tokenizer',
  '@borewit',
  'content-disposition',
  'cookie',
];

const common = {
  testEnvironment: 'node',
  moduleNameMapper: {
    '^(\\.{1,2}/.*)\\.js$': '$1',
    // The generated Prisma client imports ES modules that have CommonJS twins.
    '^(@prisma/client/runtime/.*)\\.mjs$': '$1.js',
  },
  setupFiles: ['<rootDir>/test/support/env.mjs'],
  transform: {
    '^.+\\.ts$': swc({ syntax: 'typescript', decorators: true }),
    '^.+\\.m?js$': swc({ syntax: 'ecmascript' }),
  },
  transformIgnorePatterns: [`/node_modules/(?!(${esmOnly.join('|')})/)`],
};

const withServices = {
  ...common,
  globalSetup: '<rootDir>/test/support/services.mjs',
  globalTeardown: '<rootDir>/test/support/stop-services.mjs',
};

export default {
  projects: [
    { ...common, displayName: 'unit', testMatch: ['<rootDir>/{src,libs,test}/**/*.spec.ts'] },
    { ...withServices, displayName: 'integration', testMatch: ['<rootDir>/{src,libs}/**/*.int-spec.ts'] },
    { ...withServices, displayName: 'system', testMatch: ['<rootDir>/test/**/*.e2e-spec.ts'] },
  ],
  testTimeout: 120_000,
  // Most of a test's time is spent waiting for CLIs and stores. Each file gets a process of its own: V8 counts coverage for
  // everything that a process has ever loaded, and takes longer with each file.
  maxWorkers: 2,
  workerIdleMemoryLimit: '1MB',
  // The Agent SDK opens message ports when it is imported, and never closes them. What must not be left behind (CLIs,
  // stores) the tests look for themselves.
  forceExit: true,
  coverageProvider: 'v8',
  collectCoverageFrom: ['{src,libs}/**/*.ts', '!src/generated/**', '!**/*.spec.ts', '!**/*.int-spec.ts'],
  coverageThreshold: { global: { lines: 80 } },
};
