// Brings a checkout to the point where it runs: installed, generated, built. Needs nothing but Node and npm, and does
// nothing that is done already.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const path = (...parts) => join(root, ...parts);

const LOCK = path('.cache/prepare.lock');
const LOCK_POLL_MS = 200;

/** @param {{ build?: boolean }} options `build: false` stops after generating */
export function prepare({ build = true } = {}) {
  requireNode();
  const unlock = lock();
  try {
    if (!isInstalled()) timed('Installing packages (npm ci)', install);
    const sources = [path('package-lock.json'), path('prisma/schema.prisma')];
    step('Generating the Prisma client', path('src/generated/.stamp'), sources, () =>
      run(bin('prisma'), ['generate']),
    );
    if (!build) return;
    const inputs = [
      'src',
      'libs',
      'prisma/schema.prisma',
      'package-lock.json',
      'tsconfig.json',
      'tsconfig.build.json',
      'nest-cli.json',
      '.swcrc',
    ];
    step(
      'Building',
      path('dist/.stamp'),
      inputs.map((input) => path(input)),
      () => run(bin('nest'), ['build']),
    );
  } finally {
    unlock();
  }
}

/** Runs a program of the checkout and passes on what it prints. @returns its exit code */
export function runShown(command, args, env = {}) {
  const { status, signal, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (error) throw error;
  return status ?? (signal ? 1 : 0);
}

export const bin = (name) => path('node_modules/.bin', name);

function requireNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19)) return;
  fail(`Claude Runner needs Node 20.19, 22.12 or 24 and newer; this is ${process.version}.`);
}

/** Whether every package is there in the version that the lock file names; npm keeps its own list of what it installed. */
function isInstalled() {
  const list = path('node_modules/.package-lock.json');
  if (!existsSync(list)) return false;
  const { packages: installed } = JSON.parse(readFileSync(list, 'utf8'));
  const { packages: wanted } = JSON.parse(readFileSync(path('package-lock.json'), 'utf8'));
  return Object.entries(wanted).every(
    // What is optional may be another platform's.
    ([name, { version, optional }]) =>
      name === '' || (optional && !installed[name]) || installed[name]?.version === version,
  );
}

function install() {
  const flags = [
    '--ignore-scripts',
    '--include=dev',
    '--include=optional',
    '--loglevel=error',
    '--no-progress',
  ];
  run('npm', ['ci', ...flags]);
}

/** Does something when what it is made from has changed since. */
function step(what, stamp, inputs, act) {
  const digest = digestOf(inputs);
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  timed(what, act);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, digest);
}

function timed(what, act) {
  const start = Date.now();
  console.log(`▸ ${what}`);
  act();
  console.log(`  done in ${((Date.now() - start) / 1000).toFixed(1)} s`);
}

function digestOf(inputs) {
  const hash = createHash('sha256').update(process.version);
  for (const file of inputs.flatMap(filesIn).sort())
    hash.update(file.slice(root.length)).update(readFileSync(file));
  return hash.digest('hex');
}

function filesIn(input) {
  if (!statSync(input).isDirectory()) return [input];
  return readdirSync(input, { withFileTypes: true, recursive: true })
    .filter(
      (entry) => entry.isFile() && !join(entry.parentPath, entry.name).startsWith(path('src/generated')),
    )
    .map((entry) => join(entry.parentPath, entry.name));
}

// Quiet unless it fails: then everything it said.
function run(command, args) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (error || status !== 0)
    fail(`${[command, ...args].join(' ')} failed.\n${error?.message ?? `${stdout}${stderr}`}`);
}

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** Two at once on one checkout take turns. */
function lock() {
  mkdirSync(dirname(LOCK), { recursive: true });
  for (let told = false; ;) {
    try {
      writeFileSync(LOCK, String(process.pid), { flag: 'wx' });
      const unlock = () => rmSync(LOCK, { force: true });
      process.once('exit', unlock);
      return unlock;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (isStale()) {
      rmSync(LOCK, { force: true });
      continue;
    }
    if (!told) console.log('▸ Waiting for another process that prepares this checkout');
    told = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_POLL_MS);
  }
}

function isStale() {
  try {
    const owner = Number(readFileSync(LOCK, 'utf8'));
    if (!owner) return Date.now() - statSync(LOCK).mtimeMs > 5_000;
    process.kill(owner, 0);
    return false;
  } catch (error) {
    return error.code === 'ESRCH';
  }
}
