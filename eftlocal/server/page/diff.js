const marks = new WeakMap(); // owner -> its ranges
const MOST = 6_000; // words of a text that are compared; this bounds the time
const PARTS = /\s+|\p{Ideographic}|[^\s\p{Ideographic}]+/gu;

/**
 * Mark the words in which elements differ from the first one, and in it those that no other has.
 * @param owner whose marks these are; its earlier ones go
 * @returns for each element how many of its words differ: {differing, words}
 */
export function markDifferences(elements, owner = document) {
  clearDifferences(owner);
  const texts = elements.map(wordsOf);
  for (const words of texts.slice(1)) {
    for (const [left, right] of align(texts[0], words)) left.shared = right.shared = true;
  }
  const differing = texts.map((words) => words.filter((word) => texts[1] && !word.shared));
  marks.set(owner, differing.flatMap(ranges));
  const highlights = globalThis.CSS?.highlights;
  highlights?.set("difference", highlights.get("difference") ?? new Highlight());
  for (const range of marks.get(owner)) highlights?.get("difference").add(range);
  return texts.map(({ length }, index) => ({ differing: differing[index].length, words: length }));
}

/** Take the marks of an owner away. */
export function clearDifferences(owner = document) {
  const highlight = globalThis.CSS?.highlights?.get("difference");
  for (const range of marks.get(owner) ?? []) highlight?.delete(range);
}

/** The words of an element and where they are; a word may go on in the next node of its block. */
function wordsOf(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const words = [];
  let [block, last] = [null, null];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("button, figcaption, [hidden]")) continue;
    const own = node.parentElement.closest("p, li, td, th, pre, div, h3, h4, h5, h6");
    if (own !== block) [block, last] = [own, null];
    for (const { 0: text, index } of node.data.matchAll(PARTS)) {
      const [from, to] = [[node, index], [node, index + text.length]];
      const goesOn = last && index === 0 && !/\p{Ideographic}/u.test(text);
      if (!text.trim()) last = null;
      else if (goesOn) Object.assign(last, { text: last.text + text, to });
      else words.push((last = { text, from, to, block, place: words.length }));
    }
  }
  return words.slice(0, MOST);
}

/** One range for each run of words in a block. */
function ranges(words) {
  const runs = [];
  for (const { from, to, block, place } of words) {
    const run = runs.at(-1);
    if (run?.block === block && run.place === place - 1) Object.assign(run, { to, place });
    else runs.push({ from, to, block, place });
  }
  return runs.map(({ from, to }) => new StaticRange({
    startContainer: from[0], startOffset: from[1], endContainer: to[0], endOffset: to[1],
  }));
}

/** Pairs of a longest common subsequence, by bits (H. Hyyro 2004): one is clear where it grows. */
function align(left, right) {
  const masks = new Map();
  for (const [i, { text }] of left.entries()) {
    masks.set(text, (masks.get(text) ?? 0n) | (1n << BigInt(i)));
  }
  const rows = [(1n << BigInt(left.length)) - 1n];
  for (const { text } of right) {
    const [row, equal] = [rows.at(-1), rows.at(-1) & (masks.get(text) ?? 0n)];
    rows.push(BigInt.asUintN(left.length, (row + equal) | (row - equal)));
  }
  const grows = (i, j) => !((rows[j] >> BigInt(i)) & 1n);
  const pairs = [];
  for (let [i, j] = [left.length - 1, right.length]; i >= 0 && j > 0; ) {
    if (!grows(i, j)) i -= 1;
    else if (grows(i, j - 1)) j -= 1;
    else pairs.push([left[i--], right[--j]]);
  }
  return pairs;
}
