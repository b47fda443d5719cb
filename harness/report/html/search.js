// What a search asks of a cell: words, field:value, is:..., only:N, put together by and, or, not and brackets.

const holds = (text, value) => text.toLowerCase().includes(value);

// 6.1 is in debian_6.1 and not in debian_6.12 or debian_16.1.
function namesKernel(name, value) {
  const at = name.toLowerCase().indexOf(value);
  if (at < 0) return false;
  const before = name[at - 1] || "",
    after = name[at + value.length] || "";
  return !(/[0-9]/.test(value[0]) && /[0-9.]/.test(before)) && !(/[0-9]/.test(value.slice(-1)) && /[0-9]/.test(after));
}

const FIELDS = {
  kernel: (row, cell, value) => namesKernel(cell.kernel, value),
  verdict: (row, cell, value) => holds(cell.word, value),
  case: (row, cell, value) => row.kind === "item" && holds(row.group, value),
  stack: (row, cell, value) => row.stacks.some((stack) => holds(stack, value)),
  claim: (row, cell, value) => cell.claims.some((claim) => holds(claim, value)),
  fact: (row, cell, value) => cell.facts.some((fact) => holds(fact, value)),
  clause: (row, cell, value) => cell.clauses.some((clause) => holds(clause, value)),
};

const STATES = {
  different: (row) => row.differs,
  changed: (row, cell) => cell.changed,
  known: (row, cell) => cell.word.includes("known deviation"),
};

function tokens(text) {
  return text.match(/[()]|-?(?:[a-z]+:)?"[^"]*"?|[^\s()"]+/gi) || [];
}

// Returns what a search asks, or throws an Error that says what is wrong with it.
function readSearch(text) {
  const left = tokens(text);
  const found = left.length ? readEither(left) : () => true;
  if (left.length) throw new Error(`a bracket ")" closes nothing`);
  return found;
}

function readEither(left) {
  let found = readAll(left);
  while (left[0] && left[0].toLowerCase() === "or") {
    left.shift();
    const first = found,
      second = readAll(left);
    found = (row, cell) => first(row, cell) || second(row, cell);
  }
  return found;
}

function readAll(left) {
  let found = readOne(left);
  while (left.length && left[0] !== ")" && left[0].toLowerCase() !== "or") {
    if (left[0].toLowerCase() === "and") left.shift();
    const first = found,
      second = readOne(left);
    found = (row, cell) => first(row, cell) && second(row, cell);
  }
  return found;
}

function readOne(left) {
  const word = left.shift();
  if (word === undefined || word === ")" || /^(and|or)$/i.test(word))
    throw new Error(`something is missing ${word ? `before "${word}"` : "at the end"}`);
  if (word.toLowerCase() === "not" || word === "-") return negated(readOne(left));
  if (word === "(") {
    const inside = readEither(left);
    if (left.shift() !== ")") throw new Error(`a bracket "(" is not closed`);
    return inside;
  }
  return word.length > 1 && word.startsWith("-") ? negated(readTerm(word.slice(1))) : readTerm(word);
}

const negated = (asked) => (row, cell) => !asked(row, cell);

function readTerm(word) {
  const [, field, quoted] = word.match(/^(?:([a-z]+):)?([^]*)$/i);
  const value = quoted.replace(/"/g, "").toLowerCase();
  if (!field) return (row) => holds(row.text, value);
  if (!value) throw new Error(`${field}: has no value`);
  if (field === "is") return oneOf(STATES, value, "is:");
  if (field === "only") return readOnly(value);
  const asked = oneOf(FIELDS, field.toLowerCase(), "", ":");
  return (row, cell) => asked(row, cell, value);
}

function oneOf(known, name, before, after = "") {
  if (Object.hasOwn(known, name)) return known[name];
  const words = Object.keys(known).map((word) => before + word + after);
  throw new Error(`nothing is called ${before}${name}${after}; known are ${words.join(", ")}${before ? "" : ", is:, only:"}`);
}

// At most so many cells of the row say this, and others say something else.
function readOnly(value) {
  if (!/^[1-9][0-9]*$/.test(value)) throw new Error(`only: takes a number, not ${value}`);
  return (row, cell) => row.differs && says(cell) && row.cells.filter((other) => other.word === cell.word).length <= Number(value);
}

// Whether a cell says something of its kernel.
const says = (cell) => !["", "unavailable", "not tried", "not set up", "not in this run", "not reproducible here"].includes(cell.word);
