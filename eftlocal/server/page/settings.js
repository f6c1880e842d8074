import { h, replace } from "./dom.js";
import { NUMBERS } from "./fusion.js";
import { kept } from "./store.js";

const MODES = ["dynamic", "grid", "one-sided", "joint"];
const DRAFTS = ["auto", "off", 2, 4, 8, 16];
const MOST_ALPHA = 3;

/**
 * The panel of settings. What is left empty is as the model entry says; only what was changed is
 * sent, under the names of the API. Changes are kept for each entry.
 */
export class Settings {
  /** @param onChange called after every change, and onModel when another entry is chosen. */
  constructor(element, onChange, onModel) {
    this.element = element;
    this.onChange = onChange;
    this.onModel = onModel;
    this.kept = kept("settings") ?? {};
  }

  /** Show the entry that /props told of. */
  show(props) {
    this.props = props;
    this.model = props.model;
    this.defaults = props.default_generation_settings.params;
    this.draw();
  }

  /** What is sent beside the messages: the fields that differ from the entry's own. */
  get changes() {
    return this.kept[this.model] ?? {};
  }

  draw() {
    const own = [this.alpha(), this.weights(), ...NUMBERS.map((row) => this.number(...row))];
    const draft = this.choice("draft", "Draft", DRAFTS);
    const reset = h("button", { type: "button", onclick: () => this.reset() }, "Reset settings");
    replace(this.element, ...[this.models(), own, draft, reset].flat(Infinity));
  }

  reset() {
    delete this.kept[this.model];
    this.keep();
    this.draw();
    this.element.lastChild.focus();
  }

  /** Set a field, or leave it to the entry where the value is null. */
  set(name, value) {
    const { [name]: _, ...others } = this.changes;
    this.kept[this.model] = value === null ? others : { ...others, [name]: value };
    this.keep();
  }

  keep() {
    kept("settings", this.kept);
    this.onChange();
  }

  models() {
    const names = [...new Set([...this.props.models, this.model])];
    const onchange = async (event) => {
      await this.onModel(event.target.value);
      this.element.querySelector("[name=model]").focus();
    };
    const select = h("select", { name: "model", onchange }, ...options(names, this.model));
    return labelled("Model", select);
  }

  alpha() {
    const value = this.changes.alpha ?? null;
    const isFixed = typeof value === "number";
    const names = [["", `default (${this.defaults.alpha})`], ["fixed", "fixed"]];
    const modes = [...names, ...MODES.map((mode) => [mode, `${mode} (searched)`])];
    const onmode = ({ target }) => {
      this.set("alpha", target.value === "fixed" ? Number(slider.value) : target.value || null);
      this.draw();
      this.element.querySelector("[name=alpha]").focus();
    };
    const select = h("select", { name: "alpha", onchange: onmode });
    select.append(...options(modes, isFixed ? "fixed" : (value ?? "")));
    const own = Number.isFinite(this.defaults.alpha) ? this.defaults.alpha : 1;
    const shown = isFixed ? value : own;
    const [line, slider] = range("Fixed alpha", shown, [0, MOST_ALPHA], (alpha) => {
      this.set("alpha", alpha);
      select.value = "fixed";
    });
    return [labelled("Alpha", select), line];
  }

  /** A slider for two experts, a number per expert for more. */
  weights() {
    const names = this.props.experts;
    const given = this.changes.weight ?? {};
    const own = this.defaults.weight;
    if (names.length === 2) {
      const [first, second] = names;
      const lambda = this.changes.lambda ?? this.defaults.lambda ?? own[first] ?? 0.5;
      const [line] = range("lambda", lambda, [-0.5, 1.5], (value) => this.set("lambda", value));
      return [line, h("p", { class: "soft" }, `1 is all ${first}, 0 is all ${second}.`)];
    }
    return names.length < 2 ? [] : names.map((name) => {
      const onvalue = (value) => {
        const { [name]: _, ...others } = this.changes.weight ?? {};
        const weight = value === null ? others : { ...others, [name]: value };
        this.set("weight", Object.keys(weight).length ? weight : null);
      };
      const props = { step: "any", value: given[name], placeholder: own[name] };
      return labelled(`Weight of ${name}`, numberInput(props, onvalue));
    });
  }

  number(name, label, range) {
    const own = { seed: "random", max_tokens: "what fits" }[name] ?? this.defaults[name];
    const props = { ...range, name, value: this.changes[name], placeholder: own };
    return labelled(label, numberInput(props, (value) => this.set(name, value)));
  }

  choice(name, label, values) {
    const names = [["", `default (${this.defaults[name]})`], ...values];
    const onchange = ({ target }) => {
      const number = Number(target.value);
      this.set(name, target.value === "" ? null : number || target.value);
    };
    const chosen = this.changes[name] ?? "";
    return labelled(label, h("select", { name, onchange }, ...options(names, chosen)));
  }
}

function labelled(label, control) {
  const [field, ...more] = [control].flat();
  return [h("label", {}, h("span", {}, label), field), ...more];
}

function options(names, chosen) {
  return names.map((name) => {
    const [value, text] = Array.isArray(name) ? name : [name, name];
    return h("option", { value, selected: value === chosen }, String(text));
  });
}

function range(label, value, [min, max], onvalue) {
  const output = h("b", {}, String(value));
  const slider = h("input", { type: "range", min, max, step: 0.05, "aria-label": label });
  slider.value = value;
  slider.addEventListener("input", () => {
    output.textContent = slider.value;
    onvalue(Number(slider.value));
  });
  return [h("label", {}, h("span", {}, label, " ", output), slider), slider];
}

/** A field for a number; what is not allowed is marked, and not taken. */
function numberInput(props, onvalue) {
  const wrong = h("span", { class: "failure", role: "alert" });
  const input = h("input", { type: "number", inputmode: "decimal", ...props });
  input.addEventListener("input", () => {
    const isFine = input.checkValidity();
    input.setAttribute("aria-invalid", String(!isFine));
    wrong.textContent = input.validationMessage;
    if (isFine) onvalue(input.value === "" ? null : Number(input.value));
  });
  return [input, wrong];
}
