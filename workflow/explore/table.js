"use strict";
// Sorting and filtering, with typed arrays: 50,000 galaxies take milliseconds.

zoo.Table = class {
  constructor(names) {
    this.names = names;
    this.lower = names.map((name) => name.toLowerCase());
    this.orders = new Map();
  }

  // Numbers of all galaxies, those with the lowest value first; `known` of them have a value.
  order(key, values) {
    if (!this.orders.has(key)) {
      const all = Uint32Array.from(this.names.keys());
      let found = { order: all, known: all.length };
      if (key === "name") {
        all.sort((a, b) => (this.names[a] < this.names[b] ? -1 : this.names[a] > this.names[b] ? 1 : a - b));
      } else if (values) {
        const known = all.filter((i) => values[i] === values[i]).sort((a, b) => values[a] - values[b] || a - b);
        const order = new Uint32Array(all.length);
        order.set(known);
        order.set(all.filter((i) => values[i] !== values[i]), known.length);
        found = { order, known: known.length };
      }
      this.orders.set(key, found);
    }
    return this.orders.get(key);
  }

  // Numbers of the galaxies to show, in order.
  //   filters: [{values, low, high}], text: in the name, chosen: marks, one of which each galaxy must have, or null,
  //   sort: {key, values, down}. Galaxies without a value come last, and pass no filter.
  shown({ filters, text, chosen, sort }) {
    const { order, known } = this.order(sort.key, sort.values), count = order.length;
    const passed = new Uint8Array(count).fill(1), wanted = text.trim().toLowerCase();
    for (const { values, low, high } of filters) {
      for (let i = 0; i < count; i++) if (!(values[i] >= low && values[i] <= high)) passed[i] = 0;
    }
    if (chosen) for (let i = 0; i < count; i++) if (!chosen[i]) passed[i] = 0;
    if (wanted) for (let i = 0; i < count; i++) if (passed[i] && !this.lower[i].includes(wanted)) passed[i] = 0;
    const found = new Uint32Array(count);
    let length = 0;
    for (let place = 0; place < count; place++) {
      const i = order[sort.down && place < known ? known - 1 - place : place];
      if (passed[i]) found[length++] = i;
    }
    return found.subarray(0, length);
  }
};

// The shape of a histogram of values, as a path in a box of `bins` by 10.
zoo.histogram = function (values, low, high, bins = 40) {
  const counts = new Float64Array(bins), scale = bins / (high - low || 1);
  for (const value of values) {
    if (value === value) counts[Math.min(bins - 1, Math.max(0, Math.floor((value - low) * scale)))]++;
  }
  // The root shows rare values too.
  const highest = Math.sqrt(Math.max(1, ...counts));
  return `M0 10${[...counts].map((count, i) => `V${(10 - 10 * Math.sqrt(count) / highest).toFixed(2)}H${i + 1}`).join("")}V10Z`;
};
