// An item: what it ran on, and its program as a timeline, with the bytes that its steps showed.

function itemParts(page, cell) {
  const { item } = cell;
  if (!item) return [el("p", {}, "Only the table of verdicts tells of this: no run on this page has it, so there is no program to show.")];
  const parts = [itemFacts(page, cell), endingPart(item)];
  if (item.course !== undefined) parts.push(section("What it did", timeline(page.data, item)));
  else if (item.program !== undefined) parts.push(el("p", {}, "Nothing of what its steps came to is kept."));
  if (item.before && !item.word) parts.push(section("In the run before", timeline(page.data, item.before)));
  return parts;
}

function itemFacts(page, cell) {
  const { data } = page,
    { item } = cell;
  const texts = (places) => (places || []).map((place) => data.texts[place]);
  const claims = (item.claims || []).map(([claim, held]) => [
    el("a", { href: makeAddress({ at: `claim:${claim}@${cell.kernel}` }) }, claim),
    ` ${held === null ? "not decided" : held ? "held" : "did not hold"}`,
  ]);
  const again = texts(item.again).map((line) => [
    line.slice(0, line.indexOf(": ")),
    el("pre", { tabindex: "0" }, line.slice(line.indexOf(": ") + 2)),
  ]);
  return terms([
    ["ran on", data.texts[item.on]],
    ["known", item.reference],
    ["claims", claims.length && listed(claims)],
    ["facts", searches("fact", texts(item.facts))],
    ["clauses", searches("clause", texts(item.clauses))],
    ["run", data.texts[item.run]],
    ...(item.before
      ? [
          [
            "held against",
            [
              `run ${data.texts[item.before.run]}: `,
              wordTag(item.before.word),
              item.other ? ` Step ${item.other} is the first that came to something else.` : "",
            ],
          ],
        ]
      : []),
    ...again,
  ]);
}

function endingPart(item) {
  const long = [
    ["why", item.note],
    ["the kernel said", (item.messages || []).join("\n")],
    ["where", item.fingerprint],
    ["excerpt", item.excerpt],
    ["logs", item.logs],
  ];
  const told = long.filter(([, text]) => text);
  return told.length ? section("How it ended", terms(told.map(([name, text]) => [name, el("pre", { tabindex: "0" }, text)]))) : "";
}

// The steps from top to bottom, a column for each process; beside them what was observed and what is allowed.
function timeline(data, item) {
  const program = item.program === undefined ? [] : data.programs[item.program];
  const course = data.courses[item.course].map((place) => data.steps[place]);
  const before =
    item.before && item.before.program === item.program && item.before.course !== undefined
      ? data.courses[item.before.course].map((place) => data.steps[place])
      : null;
  const lanes = [...new Set(program.map((step) => step.process))];
  const writers = new Set(course.flatMap((step) => (step.data || []).map(([, writer]) => writer)));
  const heads = [
    "step",
    ...(lanes.length ? lanes.map((lane) => (lanes.length > 1 ? `process ${lane}` : "program")) : ["program"]),
    "observed",
    ...(before ? ["observed before"] : []),
    "allowed",
  ];
  const running = runningSteps(program);
  const rows = course.map((step, at) => {
    const told = program[step.number - 1];
    return el(
      "tr",
      { id: `step-${step.number}${step.call ? `-${at}` : ""}`, class: step.verdict },
      el(
        "th",
        { scope: "row" },
        writers.has(step.number) ? chip(step.number, String(step.number)) : told || !step.call ? String(step.number) : "end",
        told && told.line ? el("small", {}, ` line ${told.line}`) : "",
      ),
      laneCells(lanes, told, step, running),
      el("td", {}, observedParts(step)),
      before ? el("td", {}, before[at] ? observedParts(before[at]) : "") : "",
      el("td", {}, allowedParts(step)),
    );
  });
  return scrolling(
    "Timeline of the program",
    el(
      "table",
      { class: "timeline" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map((head) => el("th", { scope: "col" }, head)),
        ),
      ),
      el("tbody", {}, rows),
    ),
  );
}

// Of each step that is started and joined later: from where to where, and in which process.
function runningSteps(program) {
  return program.flatMap((step, from) => {
    const joined = step.start ? program.findIndex((other) => other.joins === step.start) : -1;
    return step.start ? [{ process: step.process, from: from + 1, to: joined < 0 ? program.length : joined + 1 }] : [];
  });
}

function laneCells(lanes, told, step, running) {
  if (!lanes.length || !told) return el("td", { colspan: String(lanes.length || 1) }, step.call || "");
  return lanes.map((lane) => {
    if (lane === told.process)
      return el(
        "td",
        {},
        el("code", {}, told.call),
        told.start ? el("small", {}, ` begun as ${told.start}`) : "",
        told.pin ? el("small", {}, ` the case expects: ${told.pin}`) : "",
      );
    const goes = running.find((one) => one.process === lane && one.from < step.number && step.number <= one.to);
    return el("td", goes ? { class: "running" } : {}, goes ? el("small", {}, `step ${goes.from} goes on`) : "");
  });
}

function observedParts(step) {
  const parts = [el("span", {}, step.observed || "")];
  if (step.data) parts.push(bytesOf(step.data));
  if (step.shown) parts.push(el("small", {}, step.shown.join("; ")));
  return parts;
}

function allowedParts(step) {
  const word = step.verdict && step.verdict !== "conforms" ? wordTag(step.verdict) : "";
  const reason = step.reason ? el("p", {}, step.reason) : "";
  const because = step.because
    ? el(
        "details",
        { open: step.verdict === "deviates" },
        el("summary", {}, step.clause ? `clause ${step.clause}` : "because"),
        step.because,
      )
    : "";
  return [word, el("span", {}, step.allowed || ""), reason, because];
}

const FOREIGN = 16383;

function writerName(writer) {
  return writer === FOREIGN ? "left from before the program" : `step ${writer}`;
}

function chip(writer, text) {
  const made = el("span", { class: "chip" }, text);
  made.style.setProperty("--hue", String((writer * 137.5) % 360));
  return made;
}

// The bytes that a step showed, each stretch in the colour of the step that wrote it, and with its name.
function bytesOf(stretches) {
  return el(
    "ul",
    { class: "bytes", "aria-label": "bytes" },
    stretches.map(([length, writer, source, raw]) => {
      const who = raw
        ? length
          ? `unknown bytes: ${raw}`
          : raw
        : writer
          ? `${writerName(writer)}${source ? ` from its byte ${source}` : ""}`
          : "zeroes";
      const made = el("li", { class: writer ? "written" : raw ? "unknown" : "zeroes" }, length ? `${sizeText(length)} ${who}` : who);
      made.style.setProperty("--hue", String((writer * 137.5) % 360));
      made.style.setProperty("--part", String(Math.max(1, Math.log2(length + 1))));
      return made;
    }),
  );
}

function sizeText(bytes) {
  for (const [unit, size] of [
    ["MiB", 1 << 20],
    ["KiB", 1 << 10],
  ])
    if (bytes >= size && bytes % size === 0) return `${bytes / size} ${unit}`;
  return `${bytes} B`;
}
