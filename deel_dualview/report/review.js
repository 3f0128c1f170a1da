// Review of label issues: filter, sort, mark, export. Without this script the same list stands in the page.
// What comes from the data is only ever written as text or as a value; marks live in memory until they are exported.
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const list = find("suspects");
  const tools = find("tools");
  const classNames = JSON.parse(list.dataset.classNames);
  // Of a model that is no classifier: its numbers, or labels "0" and "1", of several outputs.
  const hasNumbers = list.dataset.kind === "numbers";
  const outputNames = JSON.parse(list.dataset.outputNames ?? "null");
  const step = Number(list.dataset.first);

  // 1. One list: the issues that are folded away without a script join the others.
  const rest = find("rest");
  if (rest) {
    list.append(...rest.querySelectorAll("li[data-position]"));
    rest.remove();
  }
  list.classList.add("live");
  const items = Array.from(list.children, (element, rank) => ({
    element, rank,
    position: Number(element.dataset.position),
    given: Number(element.dataset.given),
    suggested: Number(element.dataset.suggested),
    output: Number(element.dataset.output ?? -1),
    id: JSON.parse(element.dataset.id),
  }));
  const itemOf = new Map(items.map((item) => [item.element, item]));

  // 2. Marks: {verdict, label} by item, where label is the number of the class to use, or -1 to drop the example.
  const marks = new Map();
  let limit = step;
  let matching = items;
  let current = items[0];
  let isExported = true;
  const announce = (text) => { find("said").textContent = text; };

  // 3. Controls of an issue are a copy of the template; its choice of classes is filled when it is first needed.
  for (const item of items) {
    const controls = find("controls").content.cloneNode(true);
    item.choice = controls.querySelector("select, input");
    item.buttons = Array.from(controls.querySelectorAll("button"));
    item.choice.addEventListener("change", () => {
      const label = hasNumbers && item.choice.value === "" ? null : Number(item.choice.value);
      if (label === item.given) return mark(item, "right"); // a typed number may be the one that was there
      marks.get(item).label = label;
      isExported = false;
      const chosen = hasNumbers ? item.choice.value || "drop" : item.choice.selectedOptions[0].text;
      announce(`Position ${item.position}: ${chosen}.`);
    });
    item.element.append(controls);
    item.element.tabIndex = -1;
  }

  function draw(item) {
    const verdict = marks.get(item)?.verdict;
    if (verdict) item.element.dataset.mark = verdict;
    else delete item.element.dataset.mark;
    for (const button of item.buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.mark === verdict));
    }
    item.choice.hidden = verdict !== "wrong";
    if (verdict !== "wrong") return;
    if (!hasNumbers && !item.choice.length) {
      classNames.forEach((name, number) => {
        if (number !== item.given) item.choice.append(new Option(`new label: ${name}`, number));
      });
      item.choice.append(new Option("drop this example", -1));
    }
    item.choice.value = String(marks.get(item).label ?? "");
  }

  /** Mark an issue; the same mark again takes it away. */
  function mark(item, verdict) {
    const isSame = marks.get(item)?.verdict === verdict;
    if (verdict === null || isSame) marks.delete(item);
    else marks.set(item, { verdict, label: verdict === "wrong" ? item.suggested : item.given });
    isExported = false;
    draw(item);
    count();
    const now = marks.has(item) ? `label ${verdict}` : "not reviewed";
    announce(`Position ${item.position}: ${now}. ${marks.size} of ${items.length} reviewed.`);
  }

  // 4. Filters apply when they change, never under the reader's hands: a mark hides nothing.
  const statusOf = (item) => marks.get(item)?.verdict ?? "open";
  const pairOf = (item) => (outputNames ? String(item.output) : `${item.given}-${item.suggested}`);
  const orders = {
    score: (a, b) => a.rank - b.rank,
    pair: (a, b) => a.given - b.given || a.suggested - b.suggested || a.rank - b.rank,
    position: (a, b) => a.position - b.position,
  };

  function refresh() {
    const pair = tools.elements.pair.value;
    const status = tools.elements.status.value;
    matching = items
      .filter((item) => pair === "" || pair === pairOf(item))
      .filter((item) => status === "all" || status === statusOf(item))
      .sort(orders[tools.elements.sort.value]);
    const kept = new Set(matching);
    list.append(...matching.map((item) => item.element));
    for (const item of items) if (!kept.has(item)) item.element.hidden = true;
    for (const row of document.querySelectorAll("button.row")) {
      row.setAttribute("aria-pressed", String(row.dataset.pair === pair));
    }
    showPage();
    if (matching.length && (!kept.has(current) || current.element.hidden)) makeCurrent(matching[0]);
    count();
  }

  function showPage() {
    matching.forEach((item, index) => { item.element.hidden = index >= limit; });
    const left = matching.length - limit;
    find("more").hidden = left <= 0;
    find("more").textContent = `Show ${Math.min(left, step)} more of ${left}`;
    find("empty").hidden = matching.length > 0;
  }

  function count() {
    const counts = { all: items.length, open: items.length - marks.size, wrong: 0, right: 0, unsure: 0 };
    for (const item of marks.keys()) counts[statusOf(item)] += 1;
    for (const [name, number] of Object.entries(counts)) find(`count-${name}`).textContent = number;
    find("reviewed").textContent = `${marks.size} of ${items.length} reviewed`;
    find("progress").value = marks.size;
    find("export").disabled = marks.size === 0;
    find("copy").disabled = matching.length === 0;
    find("copy").textContent = `Copy ${matching.length} positions`;
  }

  // 5. Keyboard: one issue is the list's tab stop, arrows move it.
  function makeCurrent(item) {
    current.element.tabIndex = current.choice.tabIndex = -1;
    item.element.tabIndex = item.choice.tabIndex = 0;
    current = item;
  }

  function goTo(index) {
    if (index < 0 || index >= matching.length) return;
    if (index >= limit) {
      limit = (Math.floor(index / step) + 1) * step;
      showPage();
    }
    makeCurrent(matching[index]);
    current.element.focus();
    current.element.scrollIntoView({ block: "nearest" });
  }

  function numColumns() {
    const top = matching[0].element.offsetTop;
    const next = matching.findIndex((item) => item.element.offsetTop !== top);
    return next < 1 ? 1 : next;
  }

  const verdicts = { w: "wrong", r: "right", u: "unsure" };
  list.addEventListener("keydown", (event) => {
    if (["SELECT", "INPUT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const at = matching.indexOf(current);
    const moves = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + numColumns(), ArrowUp: at - numColumns(),
      Home: 0, End: matching.length - 1,
    };
    if (key in moves) goTo(moves[key]);
    else if (key in verdicts) {
      mark(current, verdicts[key]);
      if (marks.has(current)) goTo(at + 1);
    } else if (key === "Backspace" || key === "Delete") mark(current, null);
    else return;
    event.preventDefault();
  });
  list.addEventListener("focusin", (event) => {
    const item = itemOf.get(event.target.closest("li[data-position]"));
    if (item) makeCurrent(item);
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest(".marks button");
    const item = itemOf.get(event.target.closest("li[data-position]"));
    if (button) mark(item, button.dataset.mark);
  });

  // 6. Filters and pages.
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("change", () => { limit = step; refresh(); announce(`${matching.length} label issues.`); });
  for (const row of document.querySelectorAll("button.row")) {
    row.disabled = false;
    row.addEventListener("click", () => {
      const field = tools.elements.pair;
      field.value = field.value === row.dataset.pair ? "" : row.dataset.pair;
      limit = step;
      refresh();
      announce(`${matching.length} label issues.`);
    });
  }
  find("more").addEventListener("click", () => goTo(limit));

  // 7. What leaves the page. A text that a spreadsheet would take for a formula gets an apostrophe before it.
  function cell(value) {
    let text = String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function corrections() {
    const rows = [["position", "id", ...(outputNames ? ["output"] : []), "given_label", "suggested_label", "verdict", "label"]];
    const nameOf = (label) => (hasNumbers ? label : classNames[label]);
    for (const item of [...marks.keys()].sort(orders.position)) {
      const { verdict, label } = marks.get(item);
      const names = [...(outputNames ? [outputNames[item.output]] : []), ...[item.given, item.suggested].map(nameOf)];
      const isDropped = label === null || (!hasNumbers && label < 0);
      rows.push([item.position, item.id ?? "", ...names, ...(isDropped ? ["drop", ""] : [verdict, nameOf(label)])]);
    }
    return rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
  }

  find("export").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([corrections()], { type: "text/csv;charset=utf-8" }));
    link.download = "corrections.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    isExported = true;
    announce(`corrections.csv with ${marks.size} rows.`);
  });
  addEventListener("beforeunload", (event) => { if (marks.size && !isExported) event.preventDefault(); });

  find("copy").addEventListener("click", async () => {
    const text = matching.map((item) => item.position).join(", ");
    try {
      await navigator.clipboard.writeText(text);
    } catch { // Where the browser does not let a file write to the clipboard: copy a selected text.
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    announce(`${matching.length} positions copied.`);
  });

  // 8. A link to this section leads to its first issue, which takes the keys; the title stays in sight where both fit.
  const section = list.closest("section");
  function enter() {
    if (!matching.length) return;
    current.element.focus({ preventScroll: true });
    const { bottom } = current.element.getBoundingClientRect();
    if (bottom > innerHeight) tools.scrollIntoView({ block: "start" });
  }
  // A second click on a link changes no address, and makes no event of it.
  for (const link of document.querySelectorAll(`a[href="#${section.id}"]`)) {
    link.addEventListener("click", () => setTimeout(enter));
  }

  // 9. A link from a prediction to the label issue behind it shows that issue, whatever the filters.
  function follow() {
    if (location.hash === `#${section.id}`) return enter();
    const target = items.findIndex((item) => `#${item.element.id}` === location.hash);
    if (target < 0) return;
    tools.reset();
    refresh();
    goTo(target);
  }
  addEventListener("hashchange", follow);

  tools.hidden = find("keys").hidden = false;
  makeCurrent(current);
  refresh();
  follow();
})();
