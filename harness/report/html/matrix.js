// The data of the page as rows with a cell for each kernel, and these as tables.

// From the worst to what says least; of words that are not here an ending of the guest is the worst.
const RANKS = [
  ["bad", (word) => /^deviates$|^(guest|harness)|complained/.test(word)],
  ["open", (word) => word.startsWith("undetermined")],
  ["known", (word) => word.includes("known deviation")],
  ["absent", (word) => /^(not |unavailable)/.test(word)],
  ["fine", (word) => word === "conforms"],
];
const rankOf = (word) => RANKS.findIndex(([, fits]) => fits(word)) + 1 || RANKS.length + 1;
const classOf = (word) => (RANKS[rankOf(word) - 1] || ["plain"])[0];

// "deviates (known deviation: yes)" is said in two lines.
function wordParts(word) {
  const [, first, second] = word.match(/^(.*?)(?: \((.*)\))?$/);
  return [
    first,
    second ? second.replace("known deviation: yes", "known").replace("known deviation: gone", "the known deviation is gone") : "",
  ];
}

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== undefined && value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== "" && child !== null && child !== undefined && child !== false));
  return made;
}

const hidden = (text) => el("span", { class: "hidden" }, text);

function makeCell(row, kernel, word, more = {}) {
  return { row, kernel, word, claims: [], facts: [], clauses: [], changed: false, ...more };
}

// Values of a fact that nothing told apart stand together: two differ where they have none in common.
function differ(row, one, other) {
  const values = ({ word }) => (row.kind === "fact" ? word.split(" or ") : [word]);
  return !values(one).some((value) => values(other).includes(value));
}

// Two that both say something and not the same; the one before is told to the one behind.
function markTurns(row) {
  let before = null;
  for (const cell of row.cells) {
    if (!says(cell)) continue;
    if (before && differ(row, before, cell)) cell.turnsFrom = before;
    before = cell;
  }
  row.turns = row.cells.filter((cell) => cell.turnsFrom);
  row.differs = row.turns.length > 0;
  row.byKernel = new Map(row.cells.map((cell) => [cell.kernel, cell]));
  return row;
}

function itemRow(data, name, told) {
  const kase = data.cases[told.case];
  const row = {
    kind: "item",
    name,
    group: kase.path,
    title: kase.title || "",
    label: name.slice(kase.path.length),
    stacks: [data.texts[told.stack]],
  };
  row.text = `${name} ${row.title}`;
  row.cells = data.kernels.flatMap(({ name: kernel }) => {
    if (kernel in told.cells) return [itemCell(data, row, kernel, data.items[told.cells[kernel]])];
    return kernel in told.told ? [makeCell(row, kernel, told.told[kernel])] : [];
  });
  return markTurns(row);
}

function itemCell(data, row, kernel, item) {
  const texts = (places) => (places || []).map((place) => data.texts[place]);
  const word = item.word || "not in this run";
  return makeCell(row, kernel, word, {
    item,
    claims: (item.claims || []).map(([claim]) => claim),
    facts: texts(item.facts),
    clauses: texts(item.clauses),
    changed: Boolean(item.other || (item.before && item.before.word !== item.word)),
  });
}

function tableRow(data, kind, told, group, label, more) {
  const row = { kind, told, group, label, name: label ? `${group} on ${label}` : group, title: "", stacks: told.storages || [], ...more };
  row.text = [row.name, told.words, told.means, row.title].join(" ");
  row.cells = data.kernels.flatMap(({ name: kernel }) =>
    kernel in told.cells ? [makeCell(row, kernel, told.cells[kernel].word, { told: told.cells[kernel], ...more.cell })] : [],
  );
  return markTurns(row);
}

function makeSections(data) {
  const storages = (told) => told.storages.join(", ");
  return [
    {
      id: "ways",
      head: "way of the bytes",
      rows: data.ways.map((told) => tableRow(data, "way", told, told.name, storages(told), {})),
    },
    {
      id: "claims",
      head: "claim",
      rows: data.claims.map((told) => tableRow(data, "claim", told, told.name, "", { title: told.words, cell: { claims: [told.name] } })),
    },
    {
      id: "facts",
      head: "fact",
      rows: data.facts.map((told) =>
        tableRow(data, "fact", told, told.name, storages(told), { title: told.means, cell: { facts: [told.name] } }),
      ),
    },
    { id: "cases", head: "case", rows: Object.entries(data.rows).map(([name, told]) => itemRow(data, name, told)) },
  ];
}

// What a row came to, transitions only: the first word, and each other one with the kernel since which it is so.
function historyOf(row) {
  const first = row.cells.find(says);
  return first ? [first, ...row.turns] : [];
}

const historyText = (row) =>
  historyOf(row)
    .map((cell, at) => (at ? `${cell.word} since ${cell.kernel}` : `${cell.word} on ${cell.kernel}`))
    .join("; ");

// ---- tables ---------------------------------------------------------------------------------------------------------

// What several cells came to together: the words, the worst first, with how many say each of those that say anything.
function rollUp(cells) {
  const told = cells.filter(says);
  const all = told.length ? told : cells;
  const counts = new Map();
  for (const cell of all) counts.set(cell.word, (counts.get(cell.word) || 0) + 1);
  const words = [...counts.keys()].sort((a, b) => rankOf(a) - rankOf(b));
  return { words, counts, total: all.length };
}

function rolledCell(found, column, name) {
  const cells = found.map(([cell]) => cell);
  const id = makeAddress({ at: `${name}@@${column.name}` });
  if (!cells.length) return el("td", { class: "none" }, hidden("not run"));
  const { words, counts, total } = rollUp(cells);
  const kind = classOf(words[0]);
  const [first, second] = kind === "plain" ? [words.length > 3 ? `${words.length} values` : words.join(", "), ""] : wordParts(words[0]);
  const small = kind === "plain" || total === 1 ? "" : words.length > 1 ? `${counts.get(words[0])} of ${total}` : `${total}`;
  const turned = column.kernel && cells.find((cell) => cell.turnsFrom);
  const made = wordCell(
    { first, second: [second, small].filter(Boolean).join(", "), kind },
    cells.length === 1 ? addressOf(cells[0]) : id,
    column.name,
    turned && turned.turnsFrom.kernel,
  );
  made.id = id.slice(1);
  if (!found.some(([, asked]) => asked)) made.classList.add("aside");
  return made;
}

function wordCell({ first, second, kind, note }, address, where, turns) {
  const mark = turns
    ? el(
        "span",
        { class: "turn", title: `not as on ${turns}` },
        el("span", { "aria-hidden": "true" }, "≠"),
        hidden(` not as on ${turns}: `),
      )
    : "";
  const link = el("a", { href: address, class: `word ${kind}` }, hidden(`${where}: `), first, second ? el("small", {}, ` ${second}`) : "");
  return el("td", { id: address.slice(1), class: turns ? "turned" : undefined }, mark, link, note || "");
}

// What a cell says beside its word: what the model says otherwise, and what it was in the run that this one is held against.
function notesOf(cell) {
  const notes = [];
  if (cell.told && cell.told.model) notes.push(`the model says ${cell.told.model}`);
  const before = cell.item && cell.item.before;
  if (cell.changed) notes.push(before.word === cell.word ? `other than before from step ${cell.item.other}` : `was ${before.word}`);
  return notes.map((text) => el("small", { class: "was" }, text));
}

function plainCell(cell, asked) {
  const [first, second] = wordParts(cell.word);
  const made = wordCell(
    { first, second, kind: classOf(cell.word), note: notesOf(cell) },
    addressOf(cell),
    cell.kernel,
    cell.turnsFrom && cell.turnsFrom.kernel,
  );
  if (!asked) made.classList.add("aside");
  return made;
}

const cellName = (cell) => `${cell.row.kind === "item" ? "" : `${cell.row.kind}:`}${cell.row.name}@${cell.kernel}`;
const addressOf = (cell) => makeAddress({ at: cellName(cell) });

function rowHead(row, name) {
  return el("th", { scope: "row" }, name, row.differs && el("small", { class: "history" }, historyText(row)));
}

// Draws a table of groups; a group of which one row is shown is that row.
function drawTable(section, shown, columns, state) {
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, section.head),
    columns.map((column) => el("th", { scope: "col" }, column.name, column.note ? el("small", {}, column.note) : "")),
  );
  const few = shown.length <= 60 && state.q;
  const bodies = groupRows(shown).map(([group, rows]) => drawGroup(section, group, rows, columns, state, few));
  return el("table", {}, el("thead", {}, head), bodies);
}

function groupRows(shown) {
  const groups = new Map();
  for (const found of shown) {
    if (!groups.has(found.row.group)) groups.set(found.row.group, []);
    groups.get(found.row.group).push(found);
  }
  return [...groups];
}

function drawGroup(section, group, rows, columns, state, few) {
  const body = el("tbody");
  const first = rows[0].row;
  if (rows.length === 1) {
    const named =
      first.kind === "claim"
        ? [first.title, el("small", {}, group)]
        : [
            el("strong", {}, group),
            first.title && el("span", { class: "title" }, first.title),
            first.label && el("small", {}, first.label),
          ];
    body.append(drawRow(rows[0], columns, named));
    return body;
  }
  const name = `${section.id}/${group}`;
  const isOpen = state.open.includes(name) !== Boolean(few || section.id === "ways");
  const button = el("button", { type: "button", "aria-expanded": String(isOpen), "data-group": name }, group);
  const count = el("small", {}, `${rows.length} rows`);
  const turned = rows.filter(({ row }) => row.differs).length;
  const mark = turned ? el("small", { class: "history" }, turned === rows.length ? "kernels differ" : `kernels differ in ${turned}`) : "";
  body.append(
    el(
      "tr",
      { class: "group" },
      el("th", { scope: "row" }, button, first.title ? el("span", { class: "title" }, first.title) : "", count, mark),
      columns.map((column) => rolledCell(cellsIn(rows, column), column, `${section.id}:${group}`)),
    ),
  );
  if (isOpen) for (const found of rows) body.append(drawRow(found, columns, found.row.label));
  return body;
}

// The cells of rows that belong into a column, each with whether it was asked for; a stack has only those of all its kernels.
function cellsIn(rows, column) {
  const found = rows.flatMap(({ row, asked }) => row.cells.filter((cell) => column.has(cell)).map((cell) => [cell, asked.has(cell)]));
  return column.kernel ? found : found.filter(([, asked]) => asked);
}

function drawRow(shown, columns, name) {
  const cells = columns.map((column) => {
    const found = cellsIn([shown], column);
    return column.kernel && found.length === 1 ? plainCell(...found[0]) : rolledCell(found, column, shown.row.name);
  });
  return el("tr", {}, rowHead(shown.row, name), cells);
}
