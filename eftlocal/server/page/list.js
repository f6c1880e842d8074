import { h, keepFocus, replace } from "./dom.js";
import { button } from "./turns.js";

/** The panel of conversations: opens, deletes, exports and imports them. */
export class List {
  /** @param app opens and leaves conversations; see App in main.js. */
  constructor(element, app) {
    this.element = element;
    this.app = app;
    this.rows = element.querySelector("ul");
    const [exporter, importer] = element.querySelectorAll(".tools button");
    const file = element.querySelector("[type=file]");
    exporter.onclick = () => this.export();
    importer.onclick = () => file.click();
    file.onchange = () => {
      this.import(file.files[0]);
      file.value = "";
    };
  }

  async draw() {
    const all = await this.app.store.conversations().catch(() => []);
    const rows = all.map(({ id, title: given }) => {
      const title = given || "Untitled";
      const isShown = id === this.app.conversation.id;
      const open = () => isShown || this.app.open(id);
      const label = `Delete ${title}`;
      const remove = () => this.remove(id, title);
      return h("li", {},
        button(title, open, { "aria-current": isShown, dataset: { key: `open ${id}` } }),
        button("×", remove, { "aria-label": label, title: label, dataset: { key: label + id } }));
    });
    keepFocus(this.element, () => replace(this.rows, ...rows));
  }

  async remove(id, title) {
    if (!confirm(`Delete "${title}" for good?`)) return;
    this.app.leave(id);
    const failed = () => this.app.say("This browser's storage does not answer.", "trouble");
    await this.app.store.remove(id).catch(failed);
    await this.draw();
    if (!this.element.hidden) this.element.querySelector("button").focus();
  }

  async import(file) {
    try {
      const count = await this.app.store.import(await file.text());
      this.app.say(`Imported: ${count} conversation${count === 1 ? "" : "s"}`, "ready");
    } catch (error) {
      this.app.say(error.message, "trouble");
    }
    await this.draw();
  }

  async export() {
    const text = await this.app.store.export().catch(() => null);
    if (!text) return this.app.say("This browser's storage cannot be read.", "trouble");
    const url = URL.createObjectURL(new Blob([text]));
    h("a", { href: url, download: "eftlocal-conversations.json" }).click();
    return setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}
