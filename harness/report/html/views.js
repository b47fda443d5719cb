// What is behind a cell: an item (item.js), a fact, a claim, a way of bytes, or the list of what several came to.

function section(title, ...content) {
  return el("section", {}, el("h2", {}, title), content);
}

// A list of names with what stands for each: a text, an element, or several; what is empty is left out.
function terms(pairs) {
  const told = pairs.filter(([, value]) => value && value.length !== 0);
  return el(
    "dl",
    {},
    told.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

const listed = (parts) =>
  el(
    "ul",
    {},
    parts.map((part) => el("li", {}, part)),
  );
const scrolling = (label, table) => el("div", { class: "region", role: "region", "aria-label": label, tabindex: "0" }, table);
const linkTo = (cell, text) => el("a", { href: addressOf(cell) }, text);

// Names, each of which leads to the search for it.
function searches(field, names) {
  return names.flatMap((name, place) => [place ? ", " : "", el("a", { href: makeAddress({ q: `${field}:${name}` }) }, name)]);
}

function wordTag(word) {
  const [first, second] = wordParts(word);
  return el("span", { class: `word ${classOf(word)}` }, first, second ? el("small", {}, ` ${second}`) : "");
}

// The page behind a cell.
function drawCellPage(page, cell) {
  const { row } = cell;
  const drawn = { item: itemParts, fact: factParts, claim: claimParts, way: wayParts }[row.kind](page, cell);
  return [
    el("p", { class: "kicker" }, { item: "Item", fact: "Fact", claim: "Claim", way: "Way of bytes" }[row.kind], ` on ${cell.kernel}`),
    el("h1", { tabindex: "-1" }, row.title || row.name),
    el("p", { class: "verdict" }, wordTag(cell.word), el("code", {}, row.title ? row.name : "")),
    drawn,
    historySection(row, cell),
  ];
}

// The row once more: transitions, and what each kernel says.
function historySection(row, here) {
  const cells = row.cells.map((cell) =>
    el("tr", { "aria-current": cell === here ? "true" : undefined }, el("th", { scope: "row" }, cell.kernel), plainCell(cell, true)),
  );
  cells.forEach((line) => line.lastChild.removeAttribute("id"));
  const table = el(
    "table",
    {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "kernel"), el("th", { scope: "col" }, "came to"))),
    el("tbody", {}, cells),
  );
  return section(
    "On each kernel",
    el("p", {}, row.differs ? historyText(row) : "The same wherever it says anything."),
    scrolling("On each kernel", table),
  );
}

function factParts(page, cell) {
  const { told } = cell.row;
  const asking = el("a", { href: makeAddress({ q: `fact:${told.name} kernel:${cell.kernel}` }) }, "items whose verdict asked for it");
  return [
    terms([
      ["means", told.means],
      ["source", told.source],
      ["storage", listed(told.storages)],
      ["measured by", cell.told.items === 1 ? "1 item" : `${cell.told.items} items`],
      ["the model's own table", cell.told.model ? cell.told.model : "the same"],
      ["see", asking],
    ]),
  ];
}

function claimParts(page, cell) {
  const { told, row } = cell;
  const items = (title, ids) =>
    ids.length
      ? section(
          `${title} (${ids.length})`,
          el("details", { open: ids.length <= 20 }, el("summary", {}, "items"), listed(ids.map((id) => itemLink(page, id)))),
        )
      : "";
  const aside = told.aside.map(([id, why]) => [itemLink(page, id), `: ${why}`]);
  return [
    terms([
      ["source", row.told.source],
      ["why", told.reason],
    ]),
    items("Held in", told.held),
    items("Did not hold in", told.failed),
    aside.length
      ? section(`Set aside (${aside.length})`, el("details", { open: aside.length <= 20 }, el("summary", {}, "items"), listed(aside)))
      : "",
    el("p", {}, el("a", { href: makeAddress({ q: `claim:${row.name}` }) }, "All rows that speak of this claim")),
  ];
}

function wayParts(page, cell) {
  const { told, items } = { told: cell.row.told, items: cell.told.items };
  const means = {
    alias: "What was moved is the page itself: a later write shows in it.",
    copy: "What was moved is a copy: a later write does not show in it.",
  }[cell.word];
  return [
    el("p", {}, means || ""),
    terms([["storage", listed(told.storages)]]),
    items.length
      ? section(`Shown by (${items.length})`, listed(items.map((id) => itemLink(page, id))))
      : el("p", {}, "No run on this page shows it; it is from the table that is kept."),
  ];
}

function itemLink(page, id) {
  const cell = page.byItem.get(id);
  return cell ? linkTo(cell, id) : id;
}

// What several cells came to: a list, the worst first.
function drawListPage(page, title, column, cells) {
  const sorted = [...cells].sort((a, b) => rankOf(a.word) - rankOf(b.word));
  const row = (cell) =>
    el("tr", {}, el("th", { scope: "row" }, linkTo(cell, cell.row.name)), el("td", {}, cell.kernel), el("td", {}, wordTag(cell.word)));
  const table = el(
    "table",
    {},
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        ["row", "kernel", "came to"].map((head) => el("th", { scope: "col" }, head)),
      ),
    ),
    el("tbody", {}, sorted.map(row)),
  );
  return [el("p", { class: "kicker" }, column), el("h1", { tabindex: "-1" }, title), scrolling(title, table)];
}
