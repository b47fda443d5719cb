// The page as its address says: the tables with a search, or what is behind one cell.

// An address that can be read: only what would end or split it is encoded.
function makeAddress(wanted) {
  const encode = (text) =>
    encodeURIComponent(text)
      .replace(/%(2F|5B|5D|3A|40|2C)/g, decodeURIComponent)
      .replace(/%20/g, "+");
  return (
    "#" +
    Object.entries(wanted)
      .filter(([, value]) => value)
      .map(([name, value]) => `${name}=${encode(value)}`)
      .join("&")
  );
}

function readAddress(hash) {
  const found = { q: "", at: "", across: "", open: "" };
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [, name, value] = part.match(/^([a-z]+)=([^]*)$/) || [];
    if (Object.hasOwn(found, name)) found[name] = decode(value.replace(/\+/g, " "));
  }
  return { ...found, open: found.open.split("|").filter(Boolean) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

const page = { title: document.title, data: null, sections: [], byName: new Map(), byItem: new Map(), scrolled: 0, back: "" };
const at = (id) => document.getElementById(id);

async function start() {
  at("drawn").hidden = false;
  page.data = await unpack(at("data").textContent);
  page.sections = makeSections(page.data);
  for (const cell of page.sections.flatMap(({ rows }) => rows.flatMap((row) => row.cells))) {
    page.byName.set(cellName(cell), cell);
    if (cell.item) page.byItem.set(cell.item.id, cell);
  }
  at("search").addEventListener("submit", (event) => event.preventDefault());
  at("q").addEventListener(
    "input",
    later(() => go({ q: at("q").value.trim() })),
  );
  at("across").addEventListener("change", () => go({ across: at("across").value }));
  document.addEventListener("click", onClick);
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", draw);
  draw();
  document.documentElement.dataset.drawn = "yes";
}

function later(act) {
  let waiting = 0;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(act, 150);
  };
}

// Changes what the address says of the tables; the way back leads over what was looked at, not over each letter of a search.
function go(change) {
  const state = { ...readAddress(location.hash), ...change };
  history.replaceState(null, "", makeAddress({ ...state, open: state.open.join("|") }) || "#");
  draw();
}

function onClick(event) {
  if (event.target.closest("[data-skip]")) {
    event.preventDefault();
    at("cases").querySelector(".region").focus();
  }
  const button = event.target.closest("button[data-group]");
  if (!button) return;
  const name = button.dataset.group,
    { open } = readAddress(location.hash);
  go({ open: open.includes(name) ? open.filter((other) => other !== name) : [...open, name] });
  document.querySelector(`button[data-group="${CSS.escape(name)}"]`).focus();
}

// "/" leads to the search; in a table the arrows lead from cell to cell.
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && !at("overview").hidden) {
    event.preventDefault();
    at("q").focus();
  }
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const cell = step && target.closest("td, th");
  if (cell && cell.closest("table") && moveFrom(cell, step)) event.preventDefault();
}

function moveFrom(cell, [down, right]) {
  const rows = [...cell.closest("table").rows];
  let row = rows.indexOf(cell.parentElement),
    column = cell.cellIndex;
  for (;;) {
    row += down;
    column += right;
    const next = rows[row] && rows[row].cells[column];
    if (!next) return false;
    const found = next.querySelector("a, button");
    if (found) {
      found.focus();
      return true;
    }
  }
}

// ---- drawing --------------------------------------------------------------------------------------------------------

function draw() {
  const state = readAddress(location.hash);
  const found = state.at ? behind(state.at) : null;
  const was = at("overview").hidden;
  if (found && !was) page.scrolled = scrollY;
  at("overview").hidden = Boolean(found);
  at("behind").hidden = !found;
  if (found) return drawBehind(found, state);
  document.title = page.title;
  at("q").value = document.activeElement === at("q") ? at("q").value : state.q;
  at("across").value = state.across || "kernels";
  drawTables(state);
  if (was) scrollTo(0, page.scrolled);
  page.back = location.hash.replace(/[#&]at=[^&]*/, "");
  return undefined;
}

function drawBehind(found, state) {
  const back = el("a", { href: page.back.startsWith("#") ? page.back : `#${page.back}`, class: "back" }, "Back to the tables");
  at("behind").replaceChildren(el("nav", { "aria-label": "Back" }, back), ...found.flat(Infinity).filter(Boolean));
  const title = at("behind").querySelector("h1");
  document.title = `${title.textContent}: ${page.title}`;
  scrollTo(0, 0);
  title.focus({ preventScroll: true });
}

// What an address of a cell leads to, drawn; null where there is no such cell.
function behind(name) {
  const cell = page.byName.get(name);
  if (cell) return drawCellPage(page, cell);
  const [rows, column] = name.split("@@");
  const cells = column
    ? page.sections
        .flatMap((section) => section.rows)
        .filter((row) => isIn(row, rows))
        .flatMap((row) => row.cells.filter((one) => one.kernel === column || row.stacks.includes(column)))
    : [];
  if (cells.length) return drawListPage(page, rows, column, cells);
  return [
    el("h1", { tabindex: "-1" }, "Nothing is here"),
    el("p", {}, `This page has no cell that is called ${name}; another one, of other runs, may have.`),
  ];
}

const SECTION_OF = { way: "ways", claim: "claims", fact: "facts", item: "cases" };
const isIn = (row, name) => name === row.name || name === `${SECTION_OF[row.kind]}:${row.group}`;

function drawTables(state) {
  let asked = () => true,
    problem = "";
  try {
    asked = readSearch(state.q);
  } catch (error) {
    problem = error.message;
  }
  at("q").setAttribute("aria-invalid", String(Boolean(problem)));
  let rows = 0,
    cells = 0;
  for (const one of page.sections) {
    const shown = one.rows
      .map((row) => ({ row, asked: new Set(row.cells.filter((cell) => asked(row, cell))) }))
      .filter(({ row, asked: here }) => here.size || (!state.q && !row.cells.length));
    rows += shown.length;
    for (const found of shown) cells += found.asked.size;
    drawSection(one, shown, state);
  }
  at("found").textContent = problem
    ? `This search cannot be read: ${problem}.`
    : state.q
      ? `${rows} rows with ${cells} cells that are asked for.`
      : `${rows} rows with ${cells} cells.`;
}

function drawSection(one, shown, state) {
  const place = at(one.id);
  place.querySelector(".count").textContent =
    shown.length === one.rows.length ? `${shown.length} rows` : `${shown.length} of ${one.rows.length} rows`;
  place.classList.toggle("empty", !shown.length);
  const region = place.querySelector(".region");
  const left = region.scrollLeft,
    top = region.scrollTop;
  region.replaceChildren(shown.length ? drawTable(one, shown, columnsOf(one, shown, state), state) : "");
  region.scrollTo(left, top);
}

// The columns that have something to show: kernels, or in the table of cases the stacks.
function columnsOf(one, shown, state) {
  if (one.id === "cases" && state.across === "stacks") {
    const stacks = new Set(shown.flatMap(({ row }) => row.stacks));
    return [...stacks].sort().map((name) => ({ name, has: (cell) => cell.row.stacks.includes(name) }));
  }
  const here = new Set(shown.flatMap(({ asked }) => [...asked].map((cell) => cell.kernel)));
  return page.data.kernels
    .filter(({ name }) => here.has(name))
    .map(({ name, releases }) => ({
      name,
      kernel: true,
      note: [...new Set(releases.map((release) => release.match(/^[0-9.]+/)[0]))].join(", "),
      has: (cell) => cell.kernel === name,
    }));
}

start();
