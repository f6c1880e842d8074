import { answersOf, newId } from "./conversation.js";
import { knownChanges } from "./fusion.js";
import { isRecord } from "./trace.js";

/** Keeps conversations in this browser: their texts, and apart from them what tokens came from. */
const FORMAT = "eftlocal-conversations";

/** Open the database; a browser whose storage is switched off keeps nothing. */
export async function openStore() {
  return new Store(await open().catch(() => null));
}

class Store {
  constructor(database) {
    this.database = database;
    this.removed = new Set();
    this.saving = Promise.resolve();
  }

  /** All conversations, the one that was changed last first. */
  async conversations() {
    const all = this.database ? await this.do("conversations", "getAll") : [];
    return all.sort((a, b) => b.changed - a.changed);
  }

  conversation(id) {
    return this.do("conversations", "get", id);
  }

  /** Keep a conversation; where another tab has changed it, both are kept. */
  save(conversation) {
    this.saving = this.saving.catch(() => {}).then(() => this.write(conversation));
    return this.saving;
  }

  async write(conversation) {
    if (this.removed.has(conversation.id)) return;
    const stored = await this.conversation(conversation.id);
    if (stored && stored.changed !== conversation.changed) {
      conversation.id = newId();
      conversation.title = `${conversation.title} (copy)`;
    }
    const changed = Date.now();
    await this.do("conversations", "put", { ...conversation, changed }, conversation.id);
    conversation.changed = changed;
  }

  /** Keep more token records of an answer: those from a place on. */
  saveTokens(id, from, records) {
    return this.do("tokens", "put", records, [id, from]);
  }

  /** The token records of an answer; none where none were kept. */
  async tokens(id) {
    const kept = this.database ? await this.do("tokens", "getAll", allOf(id)) : [];
    return kept.flat();
  }

  /** Delete a conversation for good, also where an answer of it still comes. */
  async remove(id) {
    this.removed.add(id);
    await this.saving.catch(() => {});
    const [removed, others] = [[], []];
    for (const each of await this.conversations()) {
      (each.id === id ? removed : others).push(...answersOf(each.turns).map((answer) => answer.id));
    }
    await this.do("conversations", "delete", id);
    // Copies that two tabs made share answers.
    for (const each of removed.filter((answer) => !others.includes(answer))) {
      await this.do("tokens", "delete", allOf(each));
    }
  }

  /** Everything as text, for a file. */
  async export() {
    const conversations = await this.conversations();
    const tokens = {};
    for (const { id } of conversations.flatMap(({ turns }) => answersOf(turns))) {
      tokens[id] = await this.tokens(id);
    }
    return JSON.stringify({ format: FORMAT, version: 1, conversations, tokens });
  }

  /** Add the conversations of an exported file under new ids; throws an Error with one line. */
  async import(text) {
    if (!this.database) throw new Error("This browser keeps nothing: its storage is switched off.");
    const { conversations, tokens } = parse(text);
    for (const conversation of conversations) {
      for (const answer of answersOf(conversation.turns)) {
        const records = list(tokens[answer.id]);
        answer.id = newId();
        if (records.every(isRecord)) await this.saveTokens(answer.id, 0, records);
      }
      await this.do("conversations", "put", conversation, conversation.id);
    }
    return conversations.length;
  }

  do(name, method, ...given) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(name, "readwrite");
      const request = transaction.objectStore(name)[method](...given);
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  }
}

/** Keep a setting of the page, or say what was kept; browsers may refuse both. */
export function kept(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(`eftlocal.${name}`, JSON.stringify(value));
    return JSON.parse(localStorage.getItem(`eftlocal.${name}`));
  } catch {
    return null;
  }
}

/** The keys of all token records of an answer. */
const allOf = (id) => IDBKeyRange.bound([id], [id, []]);

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("eftlocal", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations");
      request.result.createObjectStore("tokens");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function parse(text) {
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON. Choose one that Export has written.");
  }
  if (content?.format !== FORMAT || !Array.isArray(content.conversations)) {
    throw new Error("This file has no conversations. Choose one that Export has written.");
  }
  if (content.version !== 1) throw new Error("This file was written by a newer eftlocal.");
  const conversations = content.conversations.map(readConversation);
  return { conversations, tokens: content.tokens ?? {} };
}

function readConversation(given) {
  return {
    id: newId(),
    title: words(given?.title) || "Imported",
    system: words(given?.system),
    created: number(given?.created) ?? 0,
    changed: number(given?.changed) ?? 0,
    turns: list(given?.turns).map(readTurn),
  };
}

function readTurn(given) {
  const answers = list(given?.answers).map(readAnswer);
  const isPlace = (place) => Number.isInteger(place) && place >= 0 && place < answers.length;
  const tails = list(given?.others).map((tail) => list(tail).map(readTurn));
  return {
    question: words(given?.question),
    answers,
    chosen: isPlace(given?.chosen) ? given.chosen : 0,
    shown: list(given?.shown).filter(isPlace),
    others: tails.filter((tail) => tail.length),
  };
}

/** An answer of a file, with what is known and of the right type. */
function readAnswer(given) {
  const names = ["id", "text", "reasoning", "error", "model", "part", "finish", "facts"];
  const state = ["done", "cut"].includes(given?.state) ? given.state : "stopped";
  const texts = Object.fromEntries(names.map((name) => [name, words(given?.[name])]));
  const { experts, weights, low, high, nCtx } = given?.fusion ?? {};
  const fusion = {
    experts: list(experts).map(words),
    weights: Array.isArray(weights) ? weights.map((weight) => number(weight) ?? 0) : null,
    low: number(low) ?? 0,
    high: number(high) ?? 0,
    nCtx: number(nCtx),
  };
  return { ...texts, state, fusion, changes: knownChanges(given?.changes) };
}

const words = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : null);
const list = (value) => (Array.isArray(value) ? value : []);
