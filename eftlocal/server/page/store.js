/** Keeps conversations in this browser: their texts, and apart from them what tokens came from. */

const FORMAT = "eftlocal-conversations";

/** A new id; crypto.randomUUID is missing where a page comes over plain http. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");
}

/** Open the database; a browser whose storage is switched off keeps nothing. */
export async function openStore() {
  return new Store(await open().catch(() => null));
}

class Store {
  constructor(database) {
    this.database = database;
  }

  /** All conversations, the one that was changed last first. */
  async conversations() {
    const all = this.database ? await this.do("conversations", "getAll") : [];
    return all.sort((a, b) => b.changed - a.changed);
  }

  save(conversation) {
    conversation.changed = Date.now();
    return this.do("conversations", "put", conversation, conversation.id);
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

  async remove(conversation) {
    await this.do("conversations", "delete", conversation.id);
    for (const { id } of answersOf(conversation.turns)) await this.do("tokens", "delete", allOf(id));
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
    const { conversations, tokens } = parse(text);
    for (const conversation of conversations) {
      for (const answer of answersOf(conversation.turns)) {
        const records = tokens[answer.id];
        answer.id = newId();
        if (Array.isArray(records)) await this.saveTokens(answer.id, 0, records);
      }
      conversation.id = newId();
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

/** The keys of all token records of an answer. */
const allOf = (id) => IDBKeyRange.bound([id], [id, []]);

/** All answers of turns, also those of other versions of a question. */
export function answersOf(turns) {
  return turns.flatMap((turn) => [...turn.answers, ...turn.others.flatMap(answersOf)]);
}

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
  const isOurs = content?.format === FORMAT && Array.isArray(content.conversations);
  if (!isOurs) throw new Error("This file has no conversations. Choose one that Export has written.");
  if (content.version !== 1) throw new Error("This file was written by a newer eftlocal.");
  return { conversations: content.conversations.map(readConversation), tokens: content.tokens ?? {} };
}

// What is shown has to have the right types; everything else is kept as it is.
function readConversation(given) {
  return {
    title: words(given?.title) || "Imported",
    system: words(given?.system),
    created: Number(given?.created) || Date.now(),
    changed: Number(given?.changed) || Date.now(),
    turns: list(given?.turns).map(readTurn),
  };
}

function readTurn(given) {
  const answers = list(given?.answers).map(readAnswer);
  const isPlace = (place) => Number.isInteger(place) && place >= 0 && place < answers.length;
  return {
    question: words(given?.question),
    answers,
    chosen: isPlace(given?.chosen) ? given.chosen : 0,
    shown: list(given?.shown).filter(isPlace),
    others: list(given?.others).map((tail) => list(tail).map(readTurn)).filter((tail) => tail.length),
  };
}

function readAnswer(given) {
  const names = ["id", "text", "reasoning", "error", "model", "part", "state"];
  const texts = Object.fromEntries(names.map((name) => [name, words(given?.[name])]));
  const changes = typeof given?.changes === "object" ? given.changes : null;
  return { ...given, ...texts, changes: changes ?? {}, experts: list(given?.experts) };
}

const words = (value) => (typeof value === "string" ? value : "");
const list = (value) => (Array.isArray(value) ? value : []);
