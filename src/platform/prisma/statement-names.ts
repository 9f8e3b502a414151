/** A connection keeps a plan for each. The texts of statements are few, but for those with lists of any length. */
const MAX_NAMES = 200;

/**
 * Names for statements, by which PostgreSQL parses and plans each once a connection, and not each time: that was most of what
 * the large ones took. What comes after the first so many texts has the empty one, which is none.
 */
export class StatementNames {
  private readonly names = new Map<string, string>();

  of({ sql }: { sql: string }): string {
    const known = this.names.get(sql);
    if (known !== undefined) return known;
    if (this.names.size >= MAX_NAMES) return '';
    const name = `s${this.names.size}`;
    this.names.set(sql, name);
    return name;
  }
}
