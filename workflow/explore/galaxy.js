"use strict";
// What the view of one galaxy shows: its numbers, and its tree with a posterior for each answer.

// The questions in the order of the tree, each behind the answer that leads to it, with its depth.
zoo.ordered = function (panels) {
  const found = [], seen = new Set();
  const place = (panel, depth) => {
    if (seen.has(panel)) return;
    seen.add(panel);
    found.push({ panel, depth });
    for (const next of panels) {
      // A question that several answers lead to comes behind the first.
      if (next.after.length && panel.columns.includes(next.after[0])) place(next, depth + 1);
    }
  };
  panels.filter((panel) => !panel.after.length).forEach((panel) => place(panel, 0));
  return found;
};

zoo.number = function (value) {
  if (value !== value) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(1) : String(+value.toFixed(size < 10 ? 3 : 1));
};

// A path of the masses of bins, in a box of 100 by 21.
zoo.path = function (masses) {
  const wide = 100 / masses.length;
  let path = "M0 21";
  masses.forEach((mass, i) => { path += `L${((i + 0.5) * wide).toFixed(2)} ${(21 - 20 * mass / 255).toFixed(2)}`; });
  return `${path}L100 21Z`;
};

// What the view of a galaxy shows.
//   about: of the page, row: its values (one for each column), masses: the bytes of its densities.
zoo.galaxy = function (about, row, masses) {
  const at = new Map(about.columns.map((column, i) => [column.name, i]));
  const value = (name) => (at.has(name) ? row[at.get(name)] : NaN);
  const first = new Map();
  let outputs = 0;
  for (const panel of about.panels) { first.set(panel, outputs); outputs += panel.columns.length; }
  let said = false;
  const panels = zoo.ordered(about.panels).map(({ panel, depth }) => {
    const { low, high } = panel, scale = (x) => Math.min(100, Math.max(0, 100 * (x - low) / (high - low || 1)));
    const votes = panel.columns.map((column) => value(`${column}_votes`));
    const asked = value(`${panel.name}_asked`), total = votes.reduce((a, b) => a + b, 0);
    const label = value(`${panel.name}_label`);
    const answers = panel.columns.map((column, i) => {
      const place = first.get(panel) + i, bins = about.sizes.bins;
      const mean = at.has(`${column}_fraction`) ? value(`${column}_fraction`) : value(column);
      const [from, to] = [value(`${column}_low`), value(`${column}_high`)];
      const numbers = `${zoo.number(mean)} (${zoo.number(from)} to ${zoo.number(to)})`;
      let dot = null, text = "";
      if (total > 0) {
        [dot, text] = [scale(votes[i] / total), `${votes[i]} of ${total} votes`];
      } else if (label === label) {
        // A label is the number of its class, or the value itself.
        if (panel.kind === "number") [dot, text] = [scale(label), `label ${zoo.number(label)}`];
        else if (panel.columns.length > 1) [dot, text] = [label === i ? 100 : 0, label === i ? "label" : ""];
        else [dot, text] = [scale(label), `label: ${label ? panel.answers[0] : "no"}`];
      }
      said ||= dot !== null;
      const title = panel.answers[i] || panel.title;
      return {
        title, numbers, votes: text, dot, mean: scale(mean), low: scale(from), high: scale(to),
        density: zoo.path(masses.subarray(place * bins, (place + 1) * bins)),
        told: `${title}: mean ${numbers}${text ? `, ${text}` : ""}`,
      };
    });
    return {
      title: panel.title, depth, answers, unlikely: asked < about.relevant,
      asked: asked === asked ? `${Math.round(100 * asked)} % of the volunteers are asked` : "",
    };
  });
  const general = about.columns.filter((column) => !column.group && !column.name.startsWith("cut_"));
  const entries = general.map((column) => ({ title: column.title, about: column.about, value: zoo.number(value(column.name)) }));
  const cuts = about.cuts.filter((cut) => value(cut.column)).map((cut) => cut.name);
  if (about.cuts.length) entries.push({ title: "Passes the cuts", about: "", value: cuts.join(", ") || "none" });
  return { panels, entries, said, unlike: value("unfamiliar") > about.unlike };
};
