// Adds sorting, filtering, copying and the choice of colours to a page that is whole without it.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("js");

  const stored = {  // a page from a file may have no storage
    get: () => { try { return localStorage.getItem("verify-theme"); } catch { return null; } },
    set: (theme) => { try { localStorage.setItem("verify-theme", theme); } catch { /* not kept */ } },
  };
  if (stored.get()) root.dataset.theme = stored.get();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    stored.set(root.dataset.theme);
  });

  const rows = all("#matrix tbody tr");
  const sections = new Map(all("details.op").map((section) => [section.id, section]));
  const find = document.getElementById("find"), boxes = all('input[name="status"]');
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const statuses = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let shown = 0;
    for (const row of rows) {
      const section = sections.get(row.dataset.op);
      const text = section.textContent.toLowerCase();
      const fits = statuses.has(row.dataset.status) && words.every((word) => text.includes(word));
      row.hidden = section.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").value = `${shown} of ${rows.length} shown`;
  };
  find.addEventListener("input", filter);
  boxes.forEach((box) => box.addEventListener("change", filter));
  all("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  filter();

  for (const head of all("#matrix th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const column = head.cellIndex;
    const value = (row) => {
      const cell = row.cells[column], number = cell.dataset.value;
      return head.dataset.sort === "text" ? cell.textContent : number === "" ? Infinity : Number(number);
    };
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      all("#matrix th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      rows.sort((a, b) => { const [p, q] = [value(a), value(b)]; return p < q ? -sign : p > q ? sign : 0; });
      rows[0].parentNode.append(...rows);
    });
  }

  const unfold = document.getElementById("unfold");
  unfold.addEventListener("click", () => {
    const open = unfold.textContent === "Unfold all";
    sections.forEach((section) => { section.open = open; });
    unfold.textContent = open ? "Fold all" : "Unfold all";
  });
  for (const copy of all(".copy")) {
    copy.addEventListener("click", async () => {
      const code = copy.parentNode.querySelector("code");
      try { await navigator.clipboard.writeText(code.textContent); copy.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(code); copy.textContent = "Selected"; }
    });
  }
  const reveal = () => { const section = sections.get(location.hash.slice(1)); if (section) { section.hidden = false; section.open = true; section.scrollIntoView(); } };
  addEventListener("hashchange", reveal);
  all("#matrix a").forEach((link) => link.addEventListener("click", () => { sections.get(link.hash.slice(1)).open = true; }));
  reveal();
})();
