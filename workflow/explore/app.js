"use strict";
// The page: its state, what the user does, and what the markup of index.html asks for.

const { createApp, computed, markRaw, nextTick, onMounted, reactive, ref, shallowRef, watch } = Vue;
const YES = 1, NO = 2, WORDS = { [YES]: "yes", [NO]: "no" };
// Pixels between images of the grid, and below them for text.
const GAP = 8, TEXT = 38;

const RangeSlider = {
  props: ["filter"],
  template: "<div></div>",
  mounted() {
    const { filter } = this, { low, high } = filter.column, name = `${filter.column.group} ${filter.column.title}`;
    const slider = noUiSlider.create(this.$el, {
      start: [filter.low, filter.high],
      range: { min: low, max: high > low ? high : low + 1 },
      connect: true,
      handleAttributes: [{ "aria-label": `Lowest ${name}` }, { "aria-label": `Highest ${name}` }],
      ariaFormat: { to: zoo.number },
    });
    slider.on("slide", ([from, to], handle) => {
      // The ends of the slider are the values themselves, however they are rounded.
      if (handle === 0) filter.low = +from <= low ? low : +(+from).toPrecision(4);
      else filter.high = +to >= high ? high : +(+to).toPrecision(4);
    });
    watch(() => [filter.low, filter.high], (ends) => slider.set(ends, false));
  },
  beforeUnmount() {
    this.$el.noUiSlider.destroy();
  },
};

// What the user has selected, kept in the browser until the next visit.
function useMarks(names, report) {
  const marks = new Uint8Array(names.length), version = ref(0), marked = reactive({ yes: 0, no: 0 });
  const place = `explore ${location.pathname}`;
  const changed = () => {
    version.value++;
    const of = { yes: [], no: [] };
    marks.forEach((mark, i) => { if (mark) of[WORDS[mark]].push(names[i]); });
    Object.assign(marked, { yes: of.yes.length, no: of.no.length });
    try {
      localStorage.setItem(place, JSON.stringify(of));
    } catch {
      // A browser may keep nothing for files.
    }
  };
  try {
    const of = JSON.parse(localStorage.getItem(place) || "{}"), index = new Map(names.map((name, i) => [name, i]));
    for (const mark of [YES, NO]) {
      for (const name of of[WORDS[mark]] || []) if (index.has(name)) marks[index.get(name)] = mark;
    }
    changed();
  } catch {
    // As above.
  }
  const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return {
    marks, version, marked,
    mark(number, as) { marks[number] = marks[number] === as ? 0 : as; changed(); },
    markAll(numbers, as) { for (const number of numbers) marks[number] = as; changed(); },
    clearMarks() { marks.fill(0); changed(); },

    // The selection as a table: a column for the search and the finetuning, and where the images are.
    async save() {
      const { archives, archive, member, file_loc } = await zoo.load("places").catch(report);
      const zipped = archives.some((name) => name);
      const lines = [["id_str", ...(zipped ? ["archive", "member"] : []), "file_loc", "answer"]];
      marks.forEach((mark, i) => {
        if (!mark) return;
        const inside = zipped ? [archives[archive[i]], member[i]] : [];
        lines.push([names[i], ...inside, file_loc[i], WORDS[mark]]);
      });
      const text = lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = `${document.title.replace(/[^\w-]+/g, "_")}_selected.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      return text;
    },
  };
}

// Search, filters, cuts and the order: which galaxies are shown.
function useShown(about, table, marks, report) {
  const byName = new Map(about.columns.map((column, i) => [column.name, { ...column, number: i }]));
  const state = reactive({ search: "", sort: "", down: true, onlyMarked: false, filters: [], cuts: [], problem: "" });
  const shown = shallowRef(new Uint32Array(0)), sortColumn = shallowRef(null);
  const valuesOf = async (column) => zoo.column(column.number).catch(report);
  const cutValues = new Map();

  const addFilter = async (name, low) => {
    const column = byName.get(name), known = state.filters.find((filter) => filter.column.name === name);
    if (known && low !== undefined) known.low = low;
    if (!column || known) return;
    const values = await valuesOf(column);
    const histogram = zoo.histogram(values, column.low, column.high);
    state.filters.push({
      column: markRaw(column), values: markRaw(values), histogram, low: low ?? column.low, high: column.high,
    });
  };
  // A box that was emptied is no limit.
  const ends = ({ column, low, high }) => [low === "" ? column.low : low, high === "" ? column.high : high];
  const isActive = (filter) => ends(filter)[0] > filter.column.low || ends(filter)[1] < filter.column.high;
  const update = () => {
    const start = performance.now();
    const filters = state.filters.filter(isActive).map((filter) => {
      const [low, high] = ends(filter);
      return { values: filter.values, low, high };
    });
    for (const cut of state.cuts) filters.push({ values: cutValues.get(cut), low: 1, high: 1 });
    const key = state.sort === "name" ? "name" : sortColumn.value?.name ?? "";
    const sort = { key, values: sortColumn.value?.values, down: key !== "" && state.down };
    shown.value = table.shown({ filters, text: state.search, chosen: state.onlyMarked ? marks.marks : null, sort });
    zoo.milliseconds = performance.now() - start;
  };
  watch(() => state.sort, async (name) => {
    const column = byName.get(name);
    sortColumn.value = column ? { ...column, values: await valuesOf(column) } : null;
    update();
  });
  watch(() => [state.search, state.down, state.onlyMarked, state.onlyMarked && marks.version.value,
    state.cuts.length, ...state.filters.flatMap(({ low, high }) => [low, high])], update);
  update();
  return {
    state, shown, sortColumn, byName, addFilter, isActive,
    removeFilter(filter) { state.filters.splice(state.filters.indexOf(filter), 1); },
    resetFilters() {
      for (const filter of state.filters) Object.assign(filter, { low: filter.column.low, high: filter.column.high });
      state.cuts = [];
      state.search = "";
    },
    async toggleCut(name) {
      if (!cutValues.has(name)) cutValues.set(name, await valuesOf(byName.get(name)));
      state.cuts = state.cuts.includes(name) ? state.cuts.filter((other) => other !== name) : [...state.cuts, name];
    },
  };
}

// The grid: only the tiles on the screen are in the document.
function useGrid(about, shown) {
  const grid = ref(null), size = reactive({ width: 0, height: 0, top: 0 }), active = ref(0);
  const { group, across: acrossSheet, small } = about.sizes, missing = new Set(about.missing);
  // The images are a little larger or smaller than they are stored, so that a row fills the window.
  const across = computed(() => Math.max(1, Math.round(size.width / (small + GAP))));
  const edge = computed(() => Math.floor((size.width || small + GAP) / across.value) - GAP);
  const tile = reactive({ across: computed(() => edge.value + GAP), down: computed(() => edge.value + GAP + TEXT) });
  const rows = computed(() => Math.ceil(shown.value.length / across.value));
  const visible = computed(() => {
    const first = Math.max(0, Math.floor(size.top / tile.down) - 1);
    const last = Math.min(rows.value, Math.ceil((size.top + size.height) / tile.down) + 1);
    return Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
  });
  const sheet = (folder, number, shownAs) => {
    const place = number % group;
    return {
      backgroundImage: missing.has(number) ? "none" : `url(files/${folder}/${Math.floor(number / group)}.webp)`,
      backgroundPosition: `${-(place % acrossSheet) * shownAs}px ${-Math.floor(place / acrossSheet) * shownAs}px`,
      backgroundSize: `${acrossSheet * shownAs}px auto`, width: `${shownAs}px`, height: `${shownAs}px`,
    };
  };
  const show = () => {
    const top = Math.floor(active.value / across.value) * tile.down, element = grid.value;
    if (top < element.scrollTop) element.scrollTop = top;
    const below = top + tile.down - element.clientHeight;
    if (below > element.scrollTop) element.scrollTop = below;
  };
  const move = (place) => {
    active.value = Math.max(0, Math.min(shown.value.length - 1, place));
    show();
  };
  watch(shown, () => {
    active.value = 0;
    if (grid.value) size.top = grid.value.scrollTop = 0;
  });
  onMounted(() => {
    const measure = () => Object.assign(size, { width: grid.value.clientWidth - 2 * GAP, height: grid.value.clientHeight });
    new ResizeObserver(measure).observe(grid.value);
    measure();
  });
  return {
    grid, active, across, rows, visible, tile, move,
    scrolled() { size.top = grid.value.scrollTop; },
    page: () => across.value * Math.max(1, Math.floor(size.height / tile.down)),
    placesIn: (row) => Array.from({ length: Math.min(across.value, shown.value.length - row * across.value) },
      (_, i) => row * across.value + i),
    isMissing: (number) => missing.has(number),
    thumb: (number) => sheet("thumbs", number, edge.value),
    picture: (number) => sheet("images", number, Math.min(360, Math.round(innerWidth * 0.8))),
  };
}

// The view of one galaxy.
function useView(about, names, shown, active, report) {
  const view = ref(null), galaxy = shallowRef(null);
  const read = async () => {
    const number = shown.value[active.value], { group } = about.sizes, at = number % group;
    const [[numbers, masses], places] = await Promise.all([
      zoo.load(`galaxies/${Math.floor(number / group)}`), zoo.load("places")]).catch(report);
    const wide = about.columns.length, row = zoo.floats(numbers).subarray(at * wide, (at + 1) * wide);
    const bytes = zoo.bytes(masses), of = about.sizes.bins * about.panels.flatMap((panel) => panel.columns).length;
    const inside = places.archives[places.archive[number]];
    const place = inside ? `${inside}: ${places.member[number]}` : places.file_loc[number] || "in a shard";
    galaxy.value = { number, name: names[number], place, ...zoo.galaxy(about, row, bytes.subarray(at * of, (at + 1) * of)) };
  };
  return {
    view, galaxy, read,
    async openView() {
      await read();
      await nextTick();
      if (!view.value.open) view.value.showModal();
    },
    closeView() { view.value.close(); },
  };
}

function setup(about, names) {
  const problem = ref("");
  const report = (error) => { problem.value = error.message; throw error; };
  const table = new zoo.Table(names);
  const selection = useMarks(names, report), { marks, version } = selection;
  const filtering = useShown(about, table, selection, report), { state, shown, sortColumn, byName } = filtering;
  const grid = useGrid(about, shown), { active, move } = grid;
  const { view, galaxy, read, openView, closeView } = useView(about, names, shown, active, report);
  const mode = ref(YES), filtersOpen = ref(false), searchBox = ref(null);

  const titles = [...new Set(about.columns.map((column) => column.group))];
  const groups = titles.map((title) => ({
    title: title || "All", columns: about.columns.filter((column) => column.group === title),
  }));
  const panelOf = new Map(about.panels.flatMap((panel) => panel.columns.map((name) => [`${name}_fraction`, panel])));
  const askedOf = (filter) => {
    const panel = panelOf.get(filter.column.name), name = panel?.after.length ? `${panel.name}_asked` : null;
    return name && !state.filters.some((other) => other.column.name === name) ? name : null;
  };
  // To begin with: the first question, the information, and whether galaxies look unfamiliar.
  const first = about.panels[0];
  const usual = [...first.columns.slice(0, 2).flatMap((name) => [`${name}_fraction`, name]),
    byName.has(`${first.name}_fraction`) ? "" : first.name, "information", "unfamiliar"];
  (async () => {
    for (const name of new Set(usual)) if (byName.get(name)?.high > byName.get(name)?.low) await filtering.addFilter(name);
  })();

  const open = (place) => { move(place); return openView(); };
  const step = (by) => { move(active.value + by); return read(); };
  const markOf = (place) => version.value >= 0 && marks[shown.value[place]];
  let last = 0;
  const clicked = (place, event) => {
    move(place);
    if (event.shiftKey) {
      const [from, to] = [Math.min(last, place), Math.max(last, place)];
      selection.markAll(shown.value.subarray(from, to + 1), mode.value);
    } else {
      selection.mark(shown.value[place], mode.value);
    }
    last = place;
  };
  const letters = (key) => ({ y: YES, n: NO, " ": mode.value })[key];
  const gridKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.across.value, ArrowDown: grid.across.value,
      PageUp: -grid.page(), PageDown: grid.page(), Home: -Infinity, End: Infinity };
    if (event.key in moves) move(active.value + moves[event.key]);
    else if (event.key === "Enter") open(active.value);
    else if (letters(event.key)) selection.mark(shown.value[active.value], letters(event.key));
    else return;
    event.preventDefault();
  };
  const viewKey = (event) => {
    if (event.target.tagName === "BUTTON" && [" ", "Enter"].includes(event.key)) return;
    if (event.key === "ArrowLeft" && active.value > 0) step(-1);
    else if (event.key === "ArrowRight" && active.value < shown.value.length - 1) step(1);
    else if (letters(event.key)) selection.mark(galaxy.value.number, letters(event.key));
    else return;
    event.preventDefault();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT/.test(event.target.tagName) && !view.value.open) {
      event.preventDefault();
      searchBox.value.focus();
    }
  });
  const parts = Object.fromEntries(["search", "sort", "down", "onlyMarked", "filters", "cuts"].map(
    (key) => [key, computed({ get: () => state[key], set: (value) => { state[key] = value; } })]));
  const nameOf = (column) => (column.group ? `${column.group}: ${column.title}` : column.title);
  // Tests and measurements look at the state through this.
  zoo.page = { about, names, state, shown, filtering, selection, move, open };
  return {
    about, names, problem, mode, filtersOpen, searchBox, groups, askedOf, open, step, markOf, clicked, gridKey, viewKey,
    nameOf, view, galaxy, closeView, ...parts, ...grid, ...filtering, ...selection,
    noCut: about.cuts.filter((cut) => !cut.galaxies).map((cut) => cut.name),
    number: zoo.number,
    whole: (count) => count.toLocaleString("en"),
    ends: about.panels.some((panel) => panel.kind === "number") ? "the lowest to the highest value" : "0 to 1",
    closed() { galaxy.value = null; grid.grid.value.focus(); },
    markShown: () => selection.markAll(shown.value, mode.value),
    activeFilters: computed(() => state.filters.filter(filtering.isActive).length + state.cuts.length + (state.search ? 1 : 0)),
    told: (place) => {
      const number = shown.value[place], mark = marks[number], column = sortColumn.value;
      const value = column ? `, ${nameOf(column)} ${zoo.number(column.values[number])}` : "";
      return names[number] + value + (mark ? `, selected as ${WORDS[mark]}` : "");
    },
  };
}

Promise.all([zoo.load("about"), zoo.load("names")]).then(([about, names]) => {
  createApp({ setup: () => setup(about, names) }).component("range-slider", RangeSlider).mount("#page");
}).catch((error) => { document.body.textContent = error.message; });
