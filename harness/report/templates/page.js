"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Theme: auto follows the system; the choice is kept where storage is allowed.
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const storage = (() => { try { return window.localStorage; } catch { return null; } })();
  const setTheme = (name) => {
    root.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
    storage?.setItem("llmatrix-theme", name);
  };
  const kept = storage?.getItem("llmatrix-theme");
  setTheme(themes.includes(kept) ? kept : "auto");
  button.hidden = false;
  button.addEventListener("click", () =>
    setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]));

  const order = new Intl.Collator(undefined, { numeric: true });
  const state = new Map(); // table name -> {sort, down, filter, outcome}

  const keyOf = (body, index) => {
    const cell = body.rows[0].cells[index];
    if (!cell || cell.classList.contains("reason")) return null;
    return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));

  const sort = (table, key, down) => {
    const heads = [...table.tHead.rows[0].cells];
    const index = heads.findIndex((head) => head.dataset.key === key);
    if (index < 0) return false;
    heads.forEach((head, i) => head.setAttribute("aria-sort",
      i === index ? (down ? "descending" : "ascending") : "none"));
    const bodies = [...table.tBodies].map((body) => [keyOf(body, index), body]);
    bodies.sort(([a], [b]) => // cells without a value stay last either way
      a === null || b === null ? (a === null) - (b === null) : compare(a, b) * (down ? -1 : 1));
    table.classList.add("sorted");
    table.append(...bodies.map(([, body]) => body));
    return true;
  };

  const filter = (table, form) => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = form.elements.outcome.value;
    let shown = 0;
    for (const body of table.tBodies) {
      const text = body.rows[0].textContent.toLowerCase();
      body.hidden = (outcome && body.dataset.outcome !== outcome)
        || !words.every((word) => text.includes(word));
      shown += !body.hidden;
    }
    form.querySelector("output").textContent =
      shown === table.tBodies.length ? `${shown} cells` : `${shown} of ${table.tBodies.length} cells`;
  };

  // The address keeps order and filters: #sort=suite:column:down&filter=suite:text&outcome=suite:ok
  const write = () => {
    const parts = new URLSearchParams();
    for (const [name, { sort: key, down, text, outcome }] of state) {
      if (key) parts.append("sort", `${name}:${key}:${down ? "down" : "up"}`);
      if (text) parts.append("filter", `${name}:${text}`);
      if (outcome) parts.append("outcome", `${name}:${outcome}`);
    }
    history.replaceState(null, "", parts.size ? `#${parts}` : location.pathname);
  };
  const of = (name) => state.get(name) ?? state.set(name, {}).get(name);

  const read = () => {
    const hash = location.hash.slice(1);
    if (hash.startsWith("cell-")) return show(document.getElementById(hash));
    const parts = new URLSearchParams(hash);
    for (const part of parts.getAll("sort")) {
      const [name, key, way] = part.split(":");
      const table = document.getElementById(`table-${name}`);
      if (table && sort(table, key, way === "down"))
        Object.assign(of(name), { sort: key, down: way === "down" });
    }
    for (const field of ["filter", "outcome"]) {
      for (const part of parts.getAll(field)) {
        const [name, ...rest] = part.split(":");
        const form = document.querySelector(`form[data-for="${CSS.escape(name)}"]`);
        if (!form) continue;
        const input = field === "filter" ? "text" : "outcome";
        form.elements[input].value = of(name)[input] = rest.join(":");
        filter(document.getElementById(`table-${name}`), form);
      }
    }
  };

  const toggle = (body, open) => {
    body.querySelector(".more").setAttribute("aria-expanded", String(open));
    body.rows[1].hidden = !open;
  };
  const show = (body) => {
    if (!body) return;
    toggle(body, true);
    body.scrollIntoView({ block: "center" });
    body.querySelector(".more").focus();
  };

  const element = (tag, text, properties = {}) =>
    Object.assign(document.createElement(tag), { textContent: text, type: "button" }, properties);

  for (const table of document.querySelectorAll("table.cells")) {
    const name = table.dataset.name;
    for (const head of table.tHead.rows[0].cells) {
      const press = element("button", "", { className: "sort" });
      press.append(...head.childNodes);
      head.append(press);
      head.setAttribute("aria-sort", "none");
      press.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        sort(table, head.dataset.key, down);
        Object.assign(of(name), { sort: head.dataset.key, down });
        write();
      });
    }
    for (const body of table.tBodies) {
      const label = body.querySelector(".more");
      const press = element("button", label.textContent, { className: "more" });
      press.setAttribute("aria-controls", body.rows[1].id);
      label.replaceWith(press);
      toggle(body, false);
    }
    table.addEventListener("click", ({ target }) => {
      const press = target.closest(".more");
      if (press) toggle(press.closest("tbody"), press.getAttribute("aria-expanded") === "false");
    });
    const form = document.querySelector(`form[data-for="${CSS.escape(name)}"]`);
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      filter(table, form);
      Object.assign(of(name), { text: form.elements.text.value, outcome: form.elements.outcome.value });
      write();
    });
  }

  for (const block of document.querySelectorAll("pre.command")) {
    const press = element("button", "Copy", { className: "copy" });
    press.setAttribute("aria-label", "Copy the command");
    block.append(press);
    press.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        press.textContent = "Copied";
      } catch { // no clipboard here: select it, so that the keyboard can copy
        getSelection().selectAllChildren(code);
        press.textContent = "Selected";
      }
      setTimeout(() => { press.textContent = "Copy"; }, 2000);
    });
  }

  addEventListener("hashchange", read);
  read();
})();
