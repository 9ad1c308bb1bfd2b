// Gives every table with data-table="NAME" (one thead, one tbody) sort buttons and a download, and
// where it asks for it a text filter (data-filter="WHAT", named by the caption without WHAT) and pages
// (data-page="ROWS"); data-first="N" says that it holds the first N rows of more.  Rows beyond those
// in the table may stand as JSON in <script type="application/json" data-rows="NAME">, in the form
// that patients_view.py describes.  A row of class "detail" belongs to the row above it.
//   td: data-value (the full number), data-low and data-high (of its interval, in a .ci)
//   th: data-column (its name in the download), data-skip (no column of data)
(function () {
  "use strict";
  const ABSENT = new Set(["", "n/a", "withheld", "missing"]);
  const ON_PAPER = 100;  // rows of a table with pages
  const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

  function make(tag, attributes, text) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const words = (element) => element.textContent.replace(/\s+/g, " ").trim();

  // What stands in a cell without its interval, which has columns of its own in a download.
  function bare(element) {
    const copy = element.cloneNode(true);
    copy.querySelectorAll(".ci, button.open, svg").forEach((e) => e.remove());
    return words(copy);
  }

  // A number as it may be written: 1,420, 12.3%, .045, < .001; "9 to 10" is none.
  function number(text) {
    const plain = text.replace(/^[<>]\s*/, "").replace(/,/g, "").replace(/\s*%$/, "");
    return NUMBER.test(plain) ? parseFloat(plain) : NaN;
  }

  // Cells of a row by column; one that spans columns stands in each of them.
  function cells(row) {
    const found = [];
    for (const cell of row.cells) {
      const d = cell.dataset;
      const one = { text: bare(cell), value: d.value, low: d.low, high: d.high };
      for (let i = 0; i < cell.colSpan; i += 1) found.push(one);
    }
    return found;
  }

  // A row of the table, with the rows of class "detail" below it.
  function fromTable(row) {
    const below = [];
    for (let next = row.nextElementSibling; next && next.matches(".detail");
      next = next.nextElementSibling) below.push(next);
    return { elements: [row, ...below], cells: cells(row), search: null };
  }

  function searched(row) {
    if (row.search === null) {
      row.search = row.elements
        ? row.elements.flatMap((e) => [...e.cells].map(words)).join(" ").toLowerCase()
        : row.more.search.toLowerCase();
    }
    return row.search;
  }

  // The rows that a filter leaves.  A pseudonym that is there means that one: P12, and not P120.
  function matching(rows, filter) {
    const named = /^p\d+$/.test(filter)
      ? rows.filter((row) => row.cells[0].text.toLowerCase() === filter) : [];
    return named.length ? named : rows.filter((row) => searched(row).includes(filter));
  }

  // A row of the data, drawn when it is shown, in the form of the table's first row.
  function drawn(row, form) {
    if (row.elements) return row.elements;
    const main = form.elements[0].cloneNode(true);
    main.querySelectorAll("button.open").forEach((e) => e.remove());
    row.cells.forEach((cell, i) => {
      const target = main.cells[i];
      for (const key of ["value", "low", "high"]) {
        delete target.dataset[key];
        if (cell[key] !== undefined) target.dataset[key] = cell[key];
      }
      target.textContent = "";
      target.append(target.tagName === "TH" ? make("bdi", {}, cell.text) : cell.text);
      if (cell.interval) target.append(make("span", { class: "ci" }, cell.interval));
    });
    row.elements = [main];
    if (row.more.lines.length) {
      const detail = make("tr", { class: "detail" });
      const inside = make("td", { colspan: String(row.cells.length) });
      const list = make("ul", { class: "records" });
      for (const [name, text] of row.more.lines) {
        const line = make("li");
        line.append(make("bdi", {}, name), " ", make("span", {}, text));
        list.append(line);
      }
      inside.append(list);
      if (row.more.note) inside.append(make("p", { class: "note" }, row.more.note));
      detail.append(inside);
      row.elements.push(detail);
      foldable(row);
    }
    return row.elements;
  }

  // Details are folded behind a button in the head of their row.
  let folds = 0;
  function foldable(row) {
    const [main, ...below] = row.elements;
    const head = main.querySelector("th");
    if (!below.length || !head) return;
    folds += 1;
    const name = words(head);
    const button = make("button", {
      type: "button", class: "open", "aria-expanded": "false", "aria-label": "Records of " + name,
      "aria-controls": "detail-" + folds,
    });
    below[0].id = "detail-" + folds;
    const show = (open) => {
      button.setAttribute("aria-expanded", String(open));
      below.forEach((e) => { e.hidden = !open; });
    };
    button.addEventListener("click", () => show(below[0].hidden));
    head.prepend(button);
    show(false);
  }

  // A row of the data: [cells, detail]; a cell is text or [text, value, interval, low, high].
  function fromData([written, lines, note]) {
    const found = written.map((cell) => {
      if (!Array.isArray(cell)) return { text: cell };
      const [text, value, interval, low, high] = cell;
      const given = (x) => (x === undefined || x === null ? undefined : String(x));
      return { text, value: given(value), interval, low: given(low), high: given(high) };
    });
    const search = [found.map((cell) => cell.text), lines.flat(), note || ""].flat().join(" ");
    return { elements: null, cells: found, search: null, more: { lines, note, search } };
  }

  // The order of two cells of a column; what is absent comes last whichever way it is sorted.
  function comparison(rows, column, direction) {
    const keys = new Map();
    let numeric = true;
    for (const row of rows) {
      const cell = row.cells[column];
      const absent = !cell || (cell.value === undefined && ABSENT.has(cell.text));
      const key = absent ? null : cell.value !== undefined ? number(cell.value) : number(cell.text);
      keys.set(row, key);
      if (Number.isNaN(key)) numeric = false;
    }
    const text = new Intl.Collator("en", { numeric: true });
    return (a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const order = numeric ? x - y : text.compare(a.cells[column].text, b.cells[column].text);
      return direction * order;
    };
  }

  // Spreadsheets run text that begins with = + - @, also after a separator of another locale.
  function harmless(text) {
    return text.replace(/(^|[;,\t\r\n|"'])(\s*)([=+\-@\uff1d\uff0b\uff0d\uff20])/g, "$1$2'$3");
  }

  function field(value) {
    if (NUMBER.test(value)) return value;
    return '"' + harmless(value).replace(/"/g, '""') + '"';
  }

  function csv(heads, rows) {
    const columns = [];
    heads.forEach((head, i) => {
      if (head.skip) return;
      columns.push([head.name, i, (c) => c.value ?? c.text]);
      for (const end of ["low", "high"]) {
        if (rows.some((row) => row.cells[i]?.[end] !== undefined)) {
          columns.push([head.name + " " + end, i, (c) => c[end] ?? ""]);
        }
      }
    });
    const lines = [columns.map(([name]) => field(name))];
    for (const { cells: found } of rows) {
      lines.push(columns.map(([, i, get]) => field(found[i] ? get(found[i]) : "")));
    }
    return "\ufeff" + lines.map((line) => line.join(",") + "\r\n").join("");
  }

  function save(name, text) {
    const link = make("a", {
      href: URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" })),
      download: name,
    });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function enhance(table) {
    const name = table.dataset.table;
    const box = table.closest(".scroll") || table;
    const body = table.tBodies[0];
    const given = [...body.rows].filter((row) => !row.matches(".detail")).map(fromTable);
    const data = document.querySelector(
      'script[type="application/json"][data-rows="' + CSS.escape(name) + '"]',
    );
    const rows = given.concat(data ? JSON.parse(data.textContent).map(fromData) : []);
    given.forEach(foldable);
    const onScreen = parseInt(table.dataset.page || "0", 10) || Infinity;
    let size = onScreen;
    const count = (n) => n.toLocaleString("en");
    const state = { column: null, direction: 1, filter: "", first: 0 };
    const heads = [];
    const caption = table.caption ? words(table.caption).split(/[.:]/)[0] : name;
    const first = table.dataset.first;

    const tools = make("div", { class: "tools" });
    const status = make("p", { role: "status" });
    if (table.hasAttribute("data-filter") && rows.length > 1) {
      const what = table.dataset.filter ? "Filter " + table.dataset.filter : "Filter: " + caption;
      const label = make("label", { class: "filter" }, what + " ");
      const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
      input.addEventListener("input", () => {
        Object.assign(state, { filter: input.value.trim().toLowerCase(), first: 0 });
        show();
      });
      label.append(input);
      box.before(label);
      tools.append(status);
    }
    const back = make("button", { type: "button" }, "Previous rows");
    const on = make("button", { type: "button" }, "Next rows");
    if (rows.length > size) {
      addEventListener("beforeprint", () => { size = ON_PAPER; show(); });
      addEventListener("afterprint", () => { size = onScreen; show(); });
      back.addEventListener("click", () => { state.first -= size; show(); });
      on.addEventListener("click", () => { state.first += size; show(); });
      tools.append(...(status.parentNode ? [] : [status]), back, on);
    }
    const offer = "Download CSV" + (first ? " of the first " + count(Number(first)) : "");
    const download = make("button", {
      type: "button", class: "download", "aria-label": offer + ": " + caption,
    }, offer);
    download.addEventListener("click", () => {
      const file = name.replace(/\.csv$/, "") + (first ? "-first-" + first : "");
      save(file + ".csv", csv(heads, chosen()));
    });
    tools.append(download);
    box.after(tools);

    function chosen() {
      const found = state.filter
        ? matching(rows, state.filter) : rows.slice();
      if (state.column !== null) {
        found.sort(comparison(found, state.column, state.direction));
      }
      return found;
    }

    function show() {
      const found = chosen();
      state.first = Math.max(0, Math.min(state.first, found.length - 1));
      const last = Math.min(state.first + size, found.length);
      const part = found.slice(state.first, last);
      body.replaceChildren(...part.flatMap((row) => drawn(row, rows[0])));
      const some = part.length < found.length
        ? "Rows " + count(state.first + 1) + " to " + count(last) + " of " + count(found.length)
        : count(found.length) + (found.length === 1 ? " row" : " rows");
      const all = found.length < rows.length ? ", of " + count(rows.length) + " in all" : "";
      status.textContent = some + all + ".";
      back.disabled = state.first === 0;
      on.disabled = last >= found.length;
    }

    let column = 0;
    for (const head of table.tHead.rows[table.tHead.rows.length - 1].cells) {
      const own = column;
      const skip = head.matches(".mark, [data-skip]");
      column += head.colSpan;
      const title = head.dataset.column || bare(head);
      for (let i = own; i < column; i += 1) heads.push({ name: title, skip });
      if (skip || rows.length < 2) continue;
      const button = make("button", { type: "button", class: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const again = state.column === own;
        if (again && state.direction === -1) Object.assign(state, { column: null, direction: 1 });
        else Object.assign(state, { column: own, direction: again ? -1 : 1 });
        state.first = 0;
        table.tHead.querySelectorAll("[aria-sort]").forEach((e) => e.removeAttribute("aria-sort"));
        if (state.column !== null) {
          head.setAttribute("aria-sort", state.direction === 1 ? "ascending" : "descending");
        }
        show();
      });
    }
    show();
  }

  document.querySelectorAll("table[data-table]").forEach(enhance);
})();
