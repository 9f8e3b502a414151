// `npm start`: from a fresh clone to a server that answers, in one command.
import { prepare } from './prepared.mjs';

prepare();
await import('../dist/src/start.js');
