"use strict";
// One cell in full, in a dialog: the browser keeps the focus inside, closes it with Escape, and
// gives the focus back to what had it.
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

const copyButton = (text, block) => {
  const press = make("button", { type: "button", className: "copy" }, "Copy");
  press.setAttribute("aria-label", "Copy the command");
  press.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      press.textContent = "Copied";
    } catch { // no clipboard here: select it, so that the keyboard can copy
      getSelection().selectAllChildren(block);
      press.textContent = "Selected";
    }
    setTimeout(() => { press.textContent = "Copy"; }, 2000);
  });
  return press;
};

const drawer = (() => {
  const data = JSON.parse(document.getElementById("data").textContent || "{}");
  const dialog = document.getElementById("drawer");
  const TOP = 99, HEIGHT = 34, LEAST_STEP = 3, LEAST_WIDTH = 90;

  const drawn = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const trace = ({ points, per = 1, breaks = [] }) => {
    const steps = Math.max(1, points.length / per - 1);
    const wide = Math.max(LEAST_STEP, LEAST_WIDTH / steps), width = wide * steps;
    const svg = drawn("svg", { class: "trace", viewBox: `-1 -1 ${width + 2} ${HEIGHT + 2}`,
      width: width + 2, height: HEIGHT + 2, "aria-hidden": "true" });
    for (const step of breaks) {
      const x = wide * (step - 0.5);
      svg.append(drawn("path", { class: "break", d: `M${x} 0v${HEIGHT}` }));
    }
    const at = (height, i) =>
      `${wide * Math.floor(i / per)} ${(HEIGHT * (1 - height / TOP)).toFixed(1)}`;
    svg.append(drawn("path", { d: `M${points.map(at).join("L")}` }));
    return svg;
  };

  const table = (caption, heads, rows) => make("div", { className: "scroll short", tabIndex: 0 },
    make("table", { className: "plain samples" },
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows)));

  const metrics = (list) => {
    const wide = list.some((metric) => metric.n), compared = list.some((metric) => metric.ratio);
    const columns = [ // head, its text or element, whether it is there
      ["value", (one) => make("span", {}, make("b", {}, one.value), ` ${one.interval ?? ""}`), true],
      ["of the baseline", (one) => one.ratio ?? "", compared],
      ["in the order taken", (one) => (one.trace ? trace(one.trace) : ""), wide],
      ["n", (one) => String(one.n ?? ""), wide],
      ...["min", "25 %", "median", "75 %", "max"].map((head, i) =>
        [head, (one) => one.five?.[i] ?? "", wide]),
    ].filter(([, , there]) => there);
    const row = (one) => make("tr", {},
      make("th", { scope: "row" }, one.name, " ", make("span", { className: "unit" }, one.unit ?? "")),
      ...columns.map(([, of]) => make("td", {}, of(one))));
    const several = list.some((metric) => metric.trace?.breaks);
    return [
      table("What was measured", ["metric", ...columns.map(([head]) => head)], list.map(row)),
      several && make("p", { className: "note" }, "Dashed lines: another process took over."),
      ...list.filter((metric) => metric.floor).map((metric) =>
        make("p", { className: "note" }, make("b", {}, metric.name), ": ", metric.floor)),
    ].filter(Boolean);
  };
  const conditions = (list) => table("What went on meanwhile, one value a round",
    ["", "lowest", "median", "highest", "in the order taken"],
    list.map(({ name, three, trace: line }) => make("tr", {},
      make("th", { scope: "row" }, name), ...three.map((text) => make("td", {}, text)),
      make("td", {}, line ? trace(line) : ""))));

  const command = ([what, text]) => {
    const code = make("code", {}, text);
    return make("div", {}, make("h3", {}, what[0].toUpperCase() + what.slice(1)),
      make("pre", { className: "command", tabIndex: 0 }, code, copyButton(text, code)));
  };
  const pairs = ([heading, entries]) => entries.length === 0 ? null : make("section", {},
    make("h3", {}, heading),
    make("dl", { className: "pairs" }, ...entries.map(([name, text]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, text)))));

  const content = (cell) => [
    cell.lead && make("p", {}, cell.lead),
    cell.outcome && cell.outcome !== "ok" &&
      make("p", {}, make("b", { className: cell.outcome }, cell.outcome), " ", cell.reason ?? ""),
    ...(cell.flags ?? []).map((flag) => make("p", { className: "warning" }, `⚠ ${flag}`)),
    ...(cell.commands ?? []).map(command),
    ...(cell.metrics ? metrics(cell.metrics) : []),
    cell.conditions && conditions(cell.conditions),
    make("div", { className: "lists" }, ...(cell.lists ?? []).map(pairs)),
    cell.log && make("h3", {}, "End of its log"),
    cell.log && make("pre", { className: "log", tabIndex: 0 }, cell.log),
    ...(cell.shared ?? []).map((index) => data.shared[index]).filter(([, list]) => list.length)
      .map(([heading, list]) => make("details", {},
        make("summary", {}, heading), pairs(["", list]))),
  ].filter(Boolean);

  // `neighbour(id, step)` names the row before or after the open one in its table as it is shown.
  const open = (id, { neighbour, opened, closed }) => {
    const cell = data.cells?.[id];
    if (!cell) return;
    const button = (text, label, act) => {
      const press = make("button", { type: "button", onclick: act }, text);
      press.setAttribute("aria-label", label);
      return press;
    };
    const step = (by, label) => () => {
      const next = neighbour(id, by);
      if (!next) return;
      open(next, { neighbour, opened, closed });
      dialog.querySelector(`[aria-label="${label}"]`).focus(); // so that it can be pressed again
    };
    const stepper = (text, label, by) => {
      const press = button(text, label, step(by, label));
      press.setAttribute("aria-describedby", "drawer-title");
      press.setAttribute("aria-disabled", !neighbour(id, by));
      return press;
    };
    const title = make("h2", { id: "drawer-title", tabIndex: -1 }, cell.title, " ",
      ...(cell.tags ?? []).map((tag) => make("span", { className: "tag" }, tag)));
    dialog.replaceChildren(
      make("header", {}, title, make("div", { className: "steps" },
        stepper("↑", "Previous row", -1), stepper("↓", "Next row", 1),
        button("Close", "Close", () => dialog.close()))),
      ...content(cell));
    dialog.onclose = () => closed(id);
    dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    title.focus();
    opened(id);
  };
  return { open, has: (id) => Boolean(data.cells?.[id]) };
})();
