// `npm test`: prepares what is missing, then runs every test. Arguments go to Jest: npm test -- test/execute.
import { bin, prepare, runShown } from './prepared.mjs';

prepare();
const given = process.argv.slice(2);
// Coverage is held over everything; a part of the tests cannot reach it.
process.exit(
  runShown(bin('jest'), given.length > 0 ? given : ['--coverage', '--coverageReporters=text-summary']),
);
