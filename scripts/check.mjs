// `npm run check`: everything about the code that can be told without running the system.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bin, prepare, root, runShown } from './prepared.mjs';

prepare();

const CHECKS = [
  ['Format', () => runShown(bin('prettier'), ['--check', '--log-level=warn', '.'])],
  [
    'Lint',
    () =>
      runShown(bin('eslint'), [
        '.',
        '--max-warnings=0',
        '--cache',
        '--cache-location=node_modules/.cache/eslint/',
      ]),
  ],
  ['Types', () => runShown(bin('tsc'), ['--noEmit'])],
  [
    'Directions',
    () =>
      runShown(bin('depcruise'), ['src', 'libs', '--config', '.dependency-cruiser.mjs', '--output-type=err']),
  ],
  ['Unused code', () => runShown(bin('knip'), ['--no-progress', '--no-config-hints'])],
  ['Prisma schema', () => runShown(bin('prisma'), ['validate'], { PRISMA_HIDE_UPDATE_MESSAGE: '1' })],
  [
    'API documents lint',
    () =>
      runShown(bin('redocly'), ['lint', '--format=stylish'], {
        REDOCLY_TELEMETRY: 'off',
        REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true',
      }),
  ],
  ['API documents are what the code says', apiDocumentsAreCurrent],
];

let failed = 0;
for (const [name, check] of CHECKS) {
  const start = Date.now();
  const passed = check() === 0;
  if (!passed) failed += 1;
  console.log(`${passed ? '✓' : '✗'} ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
}
if (failed > 0) console.log(`\n${failed} of ${CHECKS.length} checks failed.`);
process.exit(failed > 0 ? 1 : 0);

function apiDocumentsAreCurrent() {
  const directory = mkdtempSync(join(tmpdir(), 'api-documents-'));
  try {
    if (runShown(process.execPath, ['dist/src/openapi.cli.js', directory]) !== 0) return 1;
    const differs = ['openapi.json', 'asyncapi.yaml'].filter(
      (name) => readFileSync(join(directory, name), 'utf8') !== readFileSync(join(root, name), 'utf8'),
    );
    for (const name of differs)
      console.log(`${name} is not what the code says: run npm run openapi and commit it.`);
    return differs.length;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
