/** A connection keeps a plan for each. The texts of statements are few, but for those with lists of any length. */
const MAX_NAMES = 200;
const BEGINNING = 48;
/** What only begins or ends a transaction has no plan. */
const PLANLESS = /^\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET)\b/i;

/**
 * Names for statements, by which PostgreSQL parses and plans each once a connection, and not each time: that was most of what
 * the large ones took. What comes after the first so many texts has the empty one, which is none.
 */
export class StatementNames {
  private readonly names = new Map<string, string>();

  of({ sql }: { sql: string }): string {
    const known = this.names.get(sql);
    if (known !== undefined) return known;
    if (this.names.size >= MAX_NAMES || PLANLESS.test(sql)) return '';
    // Which one it is shows where names are listed, and on the wire; PostgreSQL keeps 63 bytes of it.
    const name = `${this.names.size} ${sql.trim().replace(/\s+/g, ' ').slice(0, BEGINNING)}`;
    this.names.set(sql, name);
    return name;
  }
}
