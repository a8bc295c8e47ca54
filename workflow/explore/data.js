"use strict";
// The data of the page. A page that is opened from a disk may not read files, but it may run scripts: each file
// in data/ is a script that calls `zoo.received` with its own name and its content.

const zoo = {
  waiting: new Map(),
  loaded: new Map(),

  // The content of a file of data/, read once.
  load(name) {
    if (!zoo.loaded.has(name)) {
      zoo.loaded.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        zoo.waiting.set(name, resolve);
        script.src = `files/data/${name}.js`;
        script.onload = () => {
          script.remove();
          if (zoo.waiting.delete(name)) reject(new Error(`${script.src} has no data.`));
        };
        script.onerror = () => reject(new Error(`${script.src} cannot be read: copy the page with its folder files/.`));
        document.head.append(script);
      }));
    }
    return zoo.loaded.get(name);
  },

  received(name, content) {
    zoo.waiting.get(name)(content);
    zoo.waiting.delete(name);
  },

  // The values of a column, one for each galaxy.
  column(number) {
    return zoo.load(`columns/${number}`).then((content) => zoo.numbers(zoo.loaded, `columns/${number}`, content));
  },

  // Text in base 64 is decoded once; the numbers take its place.
  numbers(kept, name, content) {
    if (content instanceof Float32Array) return content;
    const found = zoo.floats(content);
    kept.set(name, Promise.resolve(found));
    return found;
  },

  bytes(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const letters = atob(text), found = new Uint8Array(letters.length);
    for (let i = 0; i < found.length; i++) found[i] = letters.charCodeAt(i);
    return found;
  },

  floats(text) {
    return new Float32Array(zoo.bytes(text).buffer);
  },
};
