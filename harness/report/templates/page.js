(() => {
  const root = document.documentElement;

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
  const MOST_CHOICES = 24;
  const states = new Map(); // table name -> {sort, down, text, where: Map(column -> value), hide: Set}
  const stateOf = (name) => states.get(name)
    ?? states.set(name, { where: new Map(), hide: new Set() }).get(name);
  const tableOf = (name) => document.getElementById(`table-${name}`);
  const formOf = (name) => document.querySelector(`form[data-for="${CSS.escape(name)}"]`);
  const headsOf = (table) => [...table.tHead.rows[0].cells];
  const columnOf = (table, key) => headsOf(table).findIndex((head) => head.dataset.key === key);
  const rowsOf = (table) => [...table.tBodies[0].rows];

  const keyOf = (row, index) => {
    const cell = row.cells[index];
    if (!cell || cell.classList.contains("reason")) return null;
    return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));

  const sort = (table, key, down) => {
    const index = columnOf(table, key);
    if (index < 0) return false;
    headsOf(table).forEach((head, i) => head.setAttribute("aria-sort",
      i === index ? (down ? "descending" : "ascending") : "none"));
    const rows = rowsOf(table).map((row) => [keyOf(row, index), row]);
    rows.sort(([a], [b]) => // cells without a value stay last either way
      a === null || b === null ? (a === null) - (b === null) : compare(a, b) * (down ? -1 : 1));
    table.classList.add("sorted");
    table.tBodies[0].append(...rows.map(([, row]) => row));
    return true;
  };

  const filter = (table) => {
    const { text = "", where } = stateOf(table.dataset.name);
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const asked = [...where].map(([key, value]) => [key, columnOf(table, key), value]);
    const holds = (row) => asked.every(([key, index, value]) =>
      (key === "outcome" ? row.dataset.outcome : row.cells[index]?.textContent.trim()) === value);
    const rows = rowsOf(table);
    let shown = 0;
    for (const row of rows) {
      const told = words.length ? row.textContent.toLowerCase() : "";
      row.hidden = !(holds(row) && words.every((word) => told.includes(word)));
      shown += !row.hidden;
    }
    const what = table.dataset.rows;
    formOf(table.dataset.name).querySelector("output").textContent =
      shown === rows.length ? `${shown} ${what}` : `${shown} of ${rows.length} ${what}`;
  };

  const sheet = document.head.appendChild(make("style"));
  const hideColumns = () => {
    sheet.textContent = [...states].flatMap(([name, { hide }]) => [...hide].map((key) => {
      const place = columnOf(tableOf(name), key) + 1;
      return `#table-${CSS.escape(name)} > * > tr > :nth-child(${place}):not(.reason) { display: none; }`;
    })).join("\n");
  };

  // The address keeps what is shown: #sort=table:column:down&filter=table:text
  // &where=table:column:value&hide=table:column, or #cell-... of the cell that is open.
  const write = () => {
    const parts = new URLSearchParams();
    for (const [name, { sort: key, down, text, where, hide }] of states) {
      if (key) parts.append("sort", `${name}:${key}:${down ? "down" : "up"}`);
      if (text) parts.append("filter", `${name}:${text}`);
      for (const [column, value] of where) parts.append("where", `${name}:${column}:${value}`);
      for (const column of hide) parts.append("hide", `${name}:${column}`);
    }
    history.replaceState(null, "", parts.size ? `#${parts}` : location.pathname);
  };

  const read = () => {
    const hash = location.hash.slice(1);
    if (hash.startsWith("cell-")) return show(hash.slice(5));
    const parts = new URLSearchParams(hash);
    const known = (part) => {
      const [name, ...rest] = part.split(":");
      return tableOf(name)?.classList.contains("cells") ? [name, ...rest] : null;
    };
    for (const [name, key, way] of parts.getAll("sort").map(known).filter(Boolean))
      if (sort(tableOf(name), key, way === "down"))
        Object.assign(stateOf(name), { sort: key, down: way === "down" });
    for (const [name, ...rest] of parts.getAll("filter").map(known).filter(Boolean))
      stateOf(name).text = rest.join(":");
    const column = ([name, key]) => key === "outcome" || columnOf(tableOf(name), key) >= 0;
    for (const [name, key, ...rest] of parts.getAll("where").map(known).filter(Boolean).filter(column))
      stateOf(name).where.set(key, rest.join(":"));
    for (const [name, key] of parts.getAll("hide").map(known).filter(Boolean).filter(column))
      stateOf(name).hide.add(key);
    for (const [name, state] of states) {
      const fields = formOf(name).elements;
      fields.text.value = state.text ?? "";
      for (const [key, value] of state.where) if (fields[key]) fields[key].value = value;
      for (const key of state.hide) if (fields[`show ${key}`]) fields[`show ${key}`].checked = false;
      filter(tableOf(name));
    }
    hideColumns();
  };

  const show = (id) => {
    const row = document.getElementById(`cell-${id}`);
    if (!row || !drawer.has(id)) return;
    const opener = (one) => document.querySelector(`#cell-${CSS.escape(one)} .more`);
    opener(id).focus(); // so that the focus returns here
    drawer.open(id, {
      neighbour: (from, by) => {
        const rows = rowsOf(row.closest("table")).filter((one) => !one.hidden);
        const place = rows.findIndex((one) => one.id === `cell-${from}`);
        return rows[place + by]?.id.slice(5);
      },
      opened: (now) => history.replaceState(null, "", `#cell-${now}`),
      closed: (last) => { write(); opener(last)?.focus(); },
    });
  };

  // A strip per number: the interval as a bar, the value as a dot, the baseline as a line.
  const drawStrip = (cell) => {
    const [value, low, high, baseline] = cell.dataset.w.split(" ").map((mark) =>
      mark === "-" ? null : mark / 10);
    const strip = make("span", { className: "strip" });
    strip.setAttribute("aria-hidden", "true");
    const put = (name, left, width) => {
      const mark = make("span", { className: name });
      mark.style.left = `${left}%`;
      if (width !== undefined) mark.style.width = `${width}%`;
      strip.append(mark);
    };
    if (cell.dataset.band) {
      const [from, to] = cell.dataset.band.split(" ").map((mark) => mark / 10);
      put("band", from, to - from);
    }
    if (baseline !== null) put("base", baseline);
    if (low !== null) put("bar", low, high - low);
    put("dot", value);
    cell.append(strip);
  };

  const addSelect = (form, table, head) => {
    const key = head.dataset.key, index = columnOf(table, key);
    const values = [...new Set(rowsOf(table).map((row) => row.cells[index].textContent.trim()))];
    if (values.length < 2 || values.length > MOST_CHOICES) return;
    const select = make("select", { name: key }, make("option", { value: "" }, "all"),
      ...values.sort(order.compare).filter(Boolean).map((value) => make("option", {}, value)));
    form.querySelector("output").before(make("label", {}, `${key} `, select));
  };

  const addColumns = (form, table) => {
    const heads = headsOf(table).filter((head) => head.dataset.metric !== undefined);
    if (heads.length < 4) return;
    form.querySelector("output").before(make("details", { className: "choose" },
      make("summary", {}, "Columns"),
      make("div", {}, ...heads.map((head) => make("label", {},
        make("input", { type: "checkbox", checked: true, name: `show ${head.dataset.key}` }),
        ` ${head.dataset.key}`)))));
  };

  const listen = (form, table) => {
    const state = stateOf(table.dataset.name);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => {
      if (target.name === "text") state.text = target.value;
      else if (target.name.startsWith("show "))
        state.hide[target.checked ? "delete" : "add"](target.name.slice(5));
      else if (target.value) state.where.set(target.name, target.value);
      else state.where.delete(target.name);
      filter(table);
      hideColumns();
      write();
    });
  };

  for (const table of document.querySelectorAll("table.cells")) {
    const name = table.dataset.name, form = formOf(name);
    for (const head of headsOf(table)) if (head.dataset.pick !== undefined) addSelect(form, table, head);
    addColumns(form, table);
    form.hidden = false;
    listen(form, table);
    for (const head of headsOf(table)) {
      const press = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      head.append(press);
      head.setAttribute("aria-sort", "none");
      press.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        sort(table, head.dataset.key, down);
        Object.assign(stateOf(name), { sort: head.dataset.key, down });
        write();
      });
    }
    for (const row of rowsOf(table)) {
      const label = row.querySelector(".more");
      if (!drawer.has(row.id.slice(5))) continue;
      const press = make("button", { type: "button", className: "more" }, label.textContent);
      press.setAttribute("aria-haspopup", "dialog");
      label.replaceWith(press);
    }
    table.addEventListener("click", ({ target }) => {
      const press = target.closest(".more");
      if (press?.tagName === "BUTTON") show(press.closest("tr").id.slice(5));
    });
    table.querySelectorAll("td[data-w]").forEach(drawStrip);
  }

  addEventListener("hashchange", read);
  read();
})();
