interface MediaRange {
  type: string;
  subtype: string;
  quality: number;
}

const RANGE = /^\s*([\w!#$%&'*+.^`|~-]+)\/([\w!#$%&'*+.^`|~-]+)\s*(?:;|$)/;
const QUALITY = /;\s*q\s*=\s*([\d.]+)/i;

/** What an Accept header (RFC 9110, 12.5.1) says of media types. One that says nothing sensible accepts them all. */
export class Accept {
  private readonly ranges: MediaRange[];

  constructor(header: string | undefined) {
    this.ranges = (header?.split(',') ?? []).flatMap((part) => toRange(part) ?? []);
  }

  /** From 0, not acceptable, to 1: what the range says that fits the type most closely. */
  qualityOf(mediaType: string): number {
    if (this.ranges.length === 0) return 1;
    const [type = '', subtype = ''] = mediaType.split('/');
    const find = (t: string, s: string) =>
      this.ranges.find((range) => range.type === t && range.subtype === s);
    return (find(type, subtype) ?? find(type, '*') ?? find('*', '*'))?.quality ?? 0;
  }

  /** Whether the type itself is mentioned, and acceptable. */
  names(mediaType: string): boolean {
    return this.ranges.some(
      ({ type, subtype, quality }) => `${type}/${subtype}` === mediaType && quality > 0,
    );
  }
}

function toRange(part: string): MediaRange | null {
  const [, type, subtype] = RANGE.exec(part) ?? [];
  if (type === undefined || subtype === undefined) return null;
  const quality = Number(QUALITY.exec(part)?.[1] ?? 1);
  return {
    type: type.toLowerCase(),
    subtype: subtype.toLowerCase(),
    quality: Number.isNaN(quality) ? 1 : quality,
  };
}
