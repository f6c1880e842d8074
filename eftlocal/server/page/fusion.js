/** What the settings of an answer mean for how it is fused. Names are those of the API. */

/** The settings that are numbers: name, label, and what is allowed. */
export const NUMBERS = [
  ["upscale_top_p", "Top-p filter of the base", { min: 0.0001, max: 1, step: "any" }],
  ["temperature", "Temperature", { min: 0, max: 100, step: "any" }],
  ["top_p", "Top-p", { min: 0.0001, max: 1, step: "any" }],
  ["seed", "Seed", { min: 0, step: 1 }],
  ["max_tokens", "Most tokens", { min: 1, step: 1 }],
];

/** Of changes that somebody wrote into a file, those that are settings of this panel. */
export function knownChanges(given) {
  const names = ["alpha", "lambda", "draft", ...NUMBERS.map(([name]) => name)];
  const isPlain = (value) => typeof value === "string" || Number.isFinite(value);
  const known = names.filter((name) => isPlain(given?.[name])).map((name) => [name, given[name]]);
  const weight = Object.entries(given?.weight ?? {}).filter(([, value]) => Number.isFinite(value));
  if (weight.length) known.push(["weight", Object.fromEntries(weight)]);
  return Object.fromEntries(known);
}

/**
 * How an answer is fused: names of the experts, their weights (null where none are given), the
 * bounds of alpha (equal where it is fixed, 0 where one part speaks alone), and the context.
 */
export function fusionOf(props, changes, part) {
  const { experts, n_ctx: nCtx } = props;
  const { params } = props.default_generation_settings;
  const lambda = changes.lambda ?? (changes.weight ? null : params.lambda);
  const weight = changes.weight ?? params.weight;
  const isWeighed = Object.keys(weight).length > 0;
  const named = isWeighed ? experts.map((name) => weight[name] ?? 0) : null;
  const weights = lambda === null ? named : [lambda, 1 - lambda];
  const alpha = changes.alpha ?? params.alpha;
  const searched = alpha === "grid" ? [0, 2] : [params.alpha_low, params.alpha_high];
  const [low, high] = typeof alpha === "number" ? [alpha, alpha] : searched;
  const bounds = part === "fused" ? { low, high } : { low: 0, high: 0 };
  return { experts, weights, ...bounds, nCtx };
}

/** Whose words an answer has: the fused ones, or those of one part alone. */
export function speakerOf(part, { experts, weights }) {
  const sizes = (weights ?? []).map(Math.abs);
  const heaviest = Math.max(0, sizes.indexOf(Math.max(...sizes)));
  if (part === "fused") return part;
  const isOneOfSeveral = part === "tuned" && experts.length > 1;
  return isOneOfSeveral ? `tuned alone (${experts[heaviest]})` : `${part} alone`;
}

/** Changed settings in words, such as "alpha 0.5, temperature 1". */
export function describe(changes) {
  const text = (value) => (value && typeof value === "object"
    ? Object.entries(value).map(([name, weight]) => `${name} ${weight}`).join(", ")
    : String(value));
  return Object.entries(changes).map(([name, value]) => `${name} ${text(value)}`).join(", ");
}
