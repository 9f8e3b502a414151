const MOST_WORDS = 200;

/**
 * Cuts a text into the pieces in which it is streamed; joined, they are the text again.
 * Into `count` pieces of like length, or fewer if the text has fewer characters (no character is cut in two);
 * without a count, into its words with the space before each, or 200 pieces if it has more words.
 */
export function splitText(text: string, count?: number): string[] {
  if (count !== undefined) return splitEvenly(text, count);
  const words = text.match(/\s*\S+|\s+/gu) ?? [];
  return words.length > MOST_WORDS ? splitEvenly(text, MOST_WORDS) : words;
}

function splitEvenly(text: string, count: number): string[] {
  const characters = Array.from(text);
  const pieces = Math.min(count, characters.length);
  const edge = (index: number) => Math.floor((index * characters.length) / pieces);
  return Array.from({ length: pieces }, (_, index) =>
    characters.slice(edge(index), edge(index + 1)).join(''),
  );
}
