/** Where a token comes from; words and thresholds in this file are those of `eftlocal explain`. */
export const ORIGINS = {
  agreement: "base and tuned model would have chosen it, too",
  base: "the base changed what the tuned model would have said",
  delta: "the delta changed what the base would have said",
  fusion: "neither base nor tuned model would have chosen it",
  sampling: "sampling took another token than the likeliest of the fused distribution",
  alone: "one of the models spoke alone, and base or tuned model would have chosen otherwise",
};

/**
 * One entry of `eft.tokens` as a small record for JSON; its texts of ids are added to `pieces`.
 * What is not known is null; so are the KLs of a token with models where they are infinite.
 * models: fused, base, then tuned and reference of every expert: { top: pairs of text and
 * probability, place: where in top the chosen token is, or -1, chosen: its probability }.
 */
export function compact(entry, pieces) {
  Object.assign(pieces, entry.pieces);
  const { token, text, trace } = entry;
  const likeliest = ({ logprobs, probability }) => {
    const places = [...trace.ids.keys()].filter((i) => Number.isFinite(logprobs[i]));
    const top = places.sort((i, j) => logprobs[j] - logprobs[i]).slice(0, 5);
    const named = (i) => [pieces[trace.ids[i]], rounded(Math.exp(logprobs[i]))];
    const place = top.findIndex((i) => trace.ids[i] === token);
    return { top: top.map(named), place, chosen: rounded(probability) };
  };
  const pairs = trace?.tuned.flatMap((tuned, i) => [tuned, trace.reference[i]]);
  return {
    text, piece: pieces[token] ?? text, isEnd: entry.finish_reason === "stop" && !text,
    alpha: entry.alpha.map(rounded), draft: entry.from_draft, logprob: rounded(entry.logprob),
    origin: trace?.origin ?? null,
    tv: trace ? rounded(Math.min(...trace.total_variation)) : null,
    klBase: trace ? rounded(trace.kl_fused_base) : null,
    klTuned: trace ? trace.kl_tuned_reference.map(rounded) : null,
    models: trace ? [trace.fused, trace.base, ...pairs].map(likeliest) : null,
  };
}

const rounded = (value) => (Number.isFinite(value) ? Number(value.toPrecision(6)) : null);

/** The shade of a number from 0 to 1: 0, which has no colour, to 4. */
export const level = (share) => Math.min(4, Math.max(0, Math.floor(share * 5 + 1e-9)));

/** A probability; small ones keep a digit. */
export function percent(p) {
  if (p >= 0.9995) return "100%";
  return p < 0.0005 ? "<0.1%" : `${(100 * p).toFixed(p >= 0.0995 ? 0 : 1)}%`;
}

/** A number with two digits after the point, small ones with one that counts; null is infinite. */
export function number(value) {
  if (value === null) return "infinite";
  if (value > 0 && value < 0.0001) return "<0.0001";
  return Math.abs(value) >= 0.005 || !value ? value.toFixed(2) : value.toPrecision(1);
}

/** A token's text in quotes and on one line: what does not print is written as an escape. */
export function quoted(text) {
  const shown = text.replace(/(?! )[\p{C}\p{Z}]/gu, (char) => {
    const hex = char.codePointAt(0).toString(16);
    const escape = char < "\u0100" ? `\\x${hex.padStart(2, "0")}` : `\\u${hex.padStart(4, "0")}`;
    return { "\n": "\\n", "\t": "\\t", "\r": "\\r" }[char] ?? escape;
  });
  return `"${shown.length > 60 ? `${shown.slice(0, 57)}...` : shown}"`;
}

/** Whether something, such as a part of an imported file, is a record of `compact`. */
export function isRecord(given) {
  const isNumber = (value) => value === null || Number.isFinite(value);
  const areNumbers = (values) => Array.isArray(values) && values.every(isNumber);
  const isPair = (pair) => Array.isArray(pair) && typeof pair[0] === "string" && isNumber(pair[1]);
  const arePairs = (pairs) => Array.isArray(pairs) && pairs.every(isPair);
  const isView = (view) =>
    arePairs(view?.top) && isNumber(view.chosen) && Number.isInteger(view.place);
  const { text, piece, alpha, tv, klBase, klTuned, models, origin } = given ?? {};
  return typeof text === "string" && typeof piece === "string" && [tv, klBase].every(isNumber)
    && areNumbers(alpha) && alpha.length > 0
    && (origin === null || (typeof origin === "string" && Object.hasOwn(ORIGINS, origin)))
    && (models === null || (Array.isArray(models) && models.every(isView) && areNumbers(klTuned)));
}
