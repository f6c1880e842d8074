/** Make an element. Text children become text nodes, so that nothing in them is read as HTML. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) element.setAttribute(name, String(value));
    else if (value !== false && value != null) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Put other children into an element; those that are null are left out. */
export function replace(element, ...children) {
  element.replaceChildren(...children.filter((child) => child != null));
}

/** Draw something anew without losing the focus: it goes to the button with the same words. */
export function keepFocus(root, draw) {
  const focused = document.activeElement;
  const wasInside = root.contains(focused);
  const near = focused.closest("article, li");
  draw();
  if (!wasInside || document.activeElement === focused) return;
  const buttons = [...(near?.isConnected ? near : root).querySelectorAll("button")];
  const key = (button) => button.dataset.key ?? button.textContent;
  const same = buttons.find((button) => key(button) === key(focused));
  (focused.isConnected ? focused : (same ?? root)).focus({ preventScroll: true });
}

/** The element of the page with an id. */
export const find = (id) => document.getElementById(id);
