import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';

const PAGE = 'docs/benchmarks.md';

/** Writes a section of docs/benchmarks.md, in the place of the one of that name; the others stay as they are. */
export function writeSection(name, text) {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const section = `${begin}\n\n${text.trim()}\n\n${end}\n`;
  const page = existsSync(PAGE) ? readFileSync(PAGE, 'utf8') : '# Benchmarks\n';
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  mkdirSync('docs', { recursive: true });
  writeFileSync(
    PAGE,
    from < 0
      ? `${page.trimEnd()}\n\n${section}`
      : page.slice(0, from) + section + page.slice(to + end.length + 1),
  );
}
