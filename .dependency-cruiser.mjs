// The five directions of docs/architecture.md, one rule each, and what every project wants besides.

const FEATURES = ['claude', 'processes', 'sessions', 'auth', 'users', 'platform'];

/** 1. claude → processes → sessions → auth → users → platform → libs, never back. */
const upwards = FEATURES.slice(1).map((feature, index) => ({
  name: `direction-${feature}-looks-down`,
  severity: 'error',
  from: { path: `^src/${feature}/` },
  to: { path: `^src/(${FEATURES.slice(0, index + 1).join('|')}|metrics)/` },
}));

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    ...upwards,
    {
      name: 'direction-metrics-listens',
      comment: '1. Nobody imports metrics but the composition.',
      severity: 'error',
      from: { path: '^src/[^/]+/', pathNot: '^src/metrics/' },
      to: { path: '^src/metrics/' },
    },
    {
      name: 'direction-no-composition',
      comment: '2. To speak upwards, emit an event: a feature never reaches the composition.',
      severity: 'error',
      from: { path: '^src/[^/]+/' },
      to: { path: '^src/[^/]+\\.ts$' },
    },
    {
      name: 'direction-feature-door',
      comment: '3. A feature enters another by its module, services, schemas, events or decorators.',
      severity: 'error',
      from: { path: '^src/([^/]+)/' },
      to: {
        path: '^src/[^/]+/',
        pathNot: [
          '^src/$1/',
          '^src/platform/',
          '^src/generated/',
          '\\.(module|service|schemas|events|decorators)\\.ts$',
        ],
      },
    },
    {
      name: 'direction-lib-door',
      comment: '4. A lib is entered by its index.ts …',
      severity: 'error',
      from: { pathNot: '^libs/' },
      to: { path: '^libs/', pathNot: '^libs/[^/]+/index\\.ts$' },
    },
    {
      name: 'direction-lib-stands-alone',
      comment: '4. … and imports nothing of src, nor, but for its tests, of another lib.',
      severity: 'error',
      from: { path: '^libs/([^/]+)/', pathNot: ['\\.(spec|int-spec)\\.ts$', '/test-support\\.ts$'] },
      to: { path: '^(src|libs)/', pathNot: '^libs/$1/' },
    },
    {
      name: 'direction-prisma-in-repositories',
      comment: '5. Only repositories see Prisma.',
      severity: 'error',
      from: {
        path: '^src/',
        pathNot: [
          '\\.repository(\\.int-spec)?\\.ts$',
          '^src/platform/(prisma|health)/',
          '^src/generated/',
          '/process-view\\.ts$',
        ],
      },
      to: { path: '^src/(generated/prisma|platform/prisma/prisma\\.service)' },
    },
    {
      name: 'direction-sockets-in-gateways',
      comment: '5. Only gateways see sockets.',
      severity: 'error',
      from: {
        path: '^src/',
        pathNot: [
          '\\.gateway\\.ts$',
          '^src/platform/(sockets|access)/',
          '/socket-[^/]+\\.ts$',
          '/access\\.guard\\.ts$',
        ],
      },
      to: { path: 'node_modules/(socket\\.io|@nestjs/websockets)/' },
    },
    {
      name: 'direction-jobs-in-processors',
      comment: '5. Only processors and queues see Bull.',
      severity: 'error',
      from: { path: '^src/', pathNot: ['\\.(processor|queue|module)\\.ts$', '^src/platform/queue/'] },
      to: { path: 'node_modules/(bull|@nestjs/bull)/' },
    },
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, pathNot: ['\\.d\\.ts$', '\\.(spec|int-spec)\\.ts$'] },
      to: {},
    },
    {
      name: 'not-to-dev-dependencies',
      severity: 'error',
      from: { path: '^(src|libs)/', pathNot: ['\\.(spec|int-spec|cli)\\.ts$', '/test-support\\.ts$'] },
      to: { dependencyTypes: ['npm-dev'] },
    },
    {
      name: 'not-to-unlisted',
      severity: 'error',
      from: { path: '^(src|libs)/' },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^src/generated/prisma/(internal|models)' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
    },
  },
};
