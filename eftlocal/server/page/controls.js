import { find } from "./dom.js";
import { kept } from "./store.js";

const root = document.documentElement;

/** A button that opens and closes a panel; on narrow screens it is closed at first. */
export function toggles(name, width) {
  const [panel, opener] = [find(name), find(`show-${name}`)];
  const set = (isShown) => {
    panel.hidden = !isShown;
    opener.setAttribute("aria-expanded", String(isShown));
  };
  const wide = matchMedia(`(min-width: ${width})`);
  wide.onchange = () => set(wide.matches);
  set(wide.matches);
  opener.onclick = () => set(panel.hidden);
  opener.closePanel = () => set(false);
  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || wide.matches) return;
    set(false);
    opener.focus();
  });
}

/** A switch whose state is kept, and known to the style sheet. */
export function remembers(name, onchange) {
  const input = find(name);
  const apply = () => (root.dataset[name] = input.checked ? "on" : "off");
  input.checked = kept(name) ?? input.checked;
  apply();
  input.onchange = () => {
    apply();
    kept(name, input.checked);
    onchange?.();
  };
}

/** One of the colourings, of which the chosen one is kept. */
export function remembersColour(input) {
  const apply = () => (root.dataset.colour = input.value);
  input.checked = input.value === (kept("colour") ?? "variation");
  if (input.checked) apply();
  input.onchange = () => kept("colour", apply());
}
