"use strict";
(() => {
  const PAGE = 20;
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;

  // What would be invisible, or would change the direction of what follows, is shown by its code.
  // The same set as HIDDEN in arcs/report/view.py, which does so for what is not made here.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e0fff}\ud800-\udfff]/gu;
  const codeOf = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  const visible = (text) => {
    const nodes = [];
    let from = 0;
    for (const found of text.matchAll(HIDDEN)) {
      if (found.index > from) nodes.push(document.createTextNode(text.slice(from, found.index)));
      const code = document.createElement("span");
      code.className = "code-point";
      code.textContent = codeOf(found[0]);
      nodes.push(code);
      from = found.index + found[0].length;
    }
    if (from < text.length) nodes.push(document.createTextNode(text.slice(from)));
    return nodes;
  };
  // Texts are only ever text nodes, and whatever they are of, they are made visible here.
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : String(value).replace(HIDDEN, codeOf));
    }
    for (const child of children) if (child !== null) node.append(...(typeof child === "string" ? visible(child) : [child]));
    return node;
  };

  // -- light and dark ------------------------------------------------------------------------
  const remembered = () => { try { return localStorage.getItem("threearc-theme"); } catch { return null; } };
  if (remembered() === "light" || remembered() === "dark") root.dataset.theme = remembered();
  const turn = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("threearc-theme", root.dataset.theme); } catch { /* a page from disk may not */ }
  };
  $("theme").addEventListener("click", turn);
  const help = $("help");
  $("help-button").addEventListener("click", () => help.showModal());

  const go = (id) => { const to = $(id); if (to) to.scrollIntoView(); };
  const typing = (target) => target.matches("input[type=search]");
  const keys = { v: () => go("verdict"), i: () => go("items"), t: turn, "?": () => help.showModal() };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "Escape") { closeMenus(); return; }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  const closeMenus = (but) => {
    for (const menu of document.querySelectorAll(".facet[open]")) if (menu !== but) menu.open = false;
  };
  document.addEventListener("click", (event) => closeMenus(event.target.closest(".facet")));

  if (!$("items")) return;

  // -- items ---------------------------------------------------------------------------------
  const { facets, items, texts } = JSON.parse($("data").textContent);
  // One row for each state of each answer: all filters must hold on one row.
  for (const item of items) {
    item.rows = [];
    for (const answer of item.a) {
      for (const state of answer.s) {
        item.rows.push({ answer, state, f: { condition: [answer.c], ...item.f, ...state.f } });
      }
    }
  }
  const counted = new Map(facets.map((name) => [name, new Map()]));
  for (const item of items) for (const row of item.rows) for (const [name, values] of Object.entries(row.f)) {
    for (const value of values) counted.get(name).set(value, (counted.get(name).get(value) || 0) + 1);
  }
  const numeric = new Intl.Collator("en", { numeric: true });
  const values = (name) => {
    const all = [...counted.get(name).keys()];
    return name === "condition" || name === "run" ? all : all.sort(numeric.compare);
  };

  let chosen = new Map(), words = "", matching = [], page = 0;
  const rowMatches = (row) => {
    for (const [name, wanted] of chosen) if (!(row.f[name] || []).some((value) => wanted.has(value))) return false;
    return true;
  };
  const heard = (item) => {
    if (!words) return true;
    const needle = words.toLowerCase();
    const said = [item.id, item.p === null ? "" : texts[item.p], ...item.a.map((a) => (a.t === null ? "" : texts[a.t]))];
    return said.some((text) => text.toLowerCase().includes(needle));
  };
  const n = (number) => number.toLocaleString("en");

  const search = () => {
    let rows = 0, all = 0;
    matching = [];
    for (const item of items) {
      all += item.rows.length;
      const hits = heard(item) ? item.rows.filter(rowMatches) : [];
      if (hits.length) { matching.push({ item, hits: new Set(hits) }); rows += hits.length; }
    }
    $("matches").textContent = chosen.size || words
      ? `${n(matching.length)} of ${n(items.length)} items, ${n(rows)} of ${n(all)} answers (an answer at each n_predict counts)`
      : `${n(items.length)} items, ${n(all)} answers (an answer at each n_predict counts)`;
  };

  // -- texts ---------------------------------------------------------------------------------
  const answerText = (answer, at) => {
    const text = texts[answer.t], box = make("pre", { tabindex: "0", "aria-label": `Answer of ${answer.c}` });
    let from = 0, beyond = false;
    const put = (part) => { if (part) box.append(beyond ? make("span", { class: "beyond" }, part) : make("span", {}, part)); };
    for (const [place, what] of answer.m) {
      put(text.slice(from, place));
      box.append(make("span", { class: "cut" }, `✂ ${what}`));
      if (at && what.startsWith(`n_predict ${at} `)) beyond = true;
      from = place;
    }
    put(text.slice(from));
    if (!text) box.append(make("span", { class: "code-point" }, "empty"));
    return box;
  };
  const block = ([title, kind, place]) => {
    const shown = make("pre", { tabindex: "0", class: kind }, texts[place]);
    return make("div", {}, make("p", { class: "block-title" }, title), shown);
  };
  const one = (facet) => (facet || []).join(", ");
  const saying = (row) => {
    const outcome = one(row.f.outcome), cut = one(row.f.cut);
    return [outcome, cut && cut !== "finished" && cut !== outcome ? `(${cut})` : ""].filter(Boolean).join(" ");
  };

  // -- one item ------------------------------------------------------------------------------
  const side = (item, answer, hits, budget) => {
    const rows = item.rows.filter((row) => row.answer === answer);
    const box = make("div", { class: "side" }, make("h4", {}, answer.c));
    const chips = make("div", { class: "chips" }), below = make("div");
    const show = (row) => {
      for (const chip of chips.children) chip.setAttribute("aria-pressed", String(chip.row === row));
      const tags = Object.entries(row.state.f).filter(([name, v]) => !["n_predict", "outcome"].includes(name) && (name !== "condition" || one(v) !== answer.c));
      below.replaceChildren(
        ...(tags.length ? [make("p", { class: "tags" }, tags.map(([name, v]) => `${name}: ${one(v)}`).join(" · "))] : []),
        ...(answer.t === null ? [] : [answerText(answer, one(row.state.f.n_predict))]),
        ...row.state.b.map(block),
      );
    };
    for (const row of rows) {
      const n_predict = one(row.state.f.n_predict);
      const chip = make("button", { type: "button", class: hits.has(row) ? "hit" : "", onclick: () => show(row) },
        [n_predict && `n ${n_predict}:`, saying(row)].filter(Boolean).join(" ") || (answer.t === null ? "reading" : "answer"));
      chip.row = row;
      chips.append(chip);
    }
    box.append(chips, below);
    // what was asked for; else the same n_predict as that, so that like stands beside like
    const first = rows.filter((row) => hits.has(row)).pop()
      || rows.find((row) => one(row.state.f.n_predict) === budget) || rows[rows.length - 1];
    if (first) show(first);
    return box;
  };
  const apart = (item, hits) => {
    if (item.a.length < 4 || hits.size === item.rows.length) return [item.a, []];
    const wanted = new Set([item.a[0], ...[...hits].map((row) => row.answer)]);
    return [item.a.filter((answer) => wanted.has(answer)), item.a.filter((answer) => !wanted.has(answer))];
  };
  const body = ({ item, hits }) => {
    const box = make("div", { class: "body" });
    const tags = Object.entries(item.f).map(([name, v]) => `${name}: ${one(v)}`);
    if (tags.length) box.append(make("p", { class: "tags" }, tags.join(" · ")));
    if (item.p === null) box.append(make("p", { class: "tags" }, "prompt: -"));
    else box.append(make("p", { class: "block-title" }, "prompt"), make("pre", { tabindex: "0" }, texts[item.p]));
    for (const each of item.b) box.append(make("details", {}, make("summary", {}, each[0]), block(each)));
    // of many answers, what was asked for stands beside the first one, which is the base's
    const budget = one([...hits].pop().f.n_predict), [near, far] = apart(item, hits);
    const sides = (answers) => make("div", { class: "sides" }, ...answers.map((answer) => side(item, answer, hits, budget)));
    box.append(sides(near));
    if (far.length) box.append(make("details", { class: "far" }, make("summary", {}, `${far.length} more answers to it`), sides(far)));
    return box;
  };
  const card = (match) => {
    const { item, hits } = match;
    const says = make("span", { class: "says" });
    const [near, far] = apart(item, hits);
    near.slice(0, 4).forEach((answer, place) => {
      const rows = item.rows.filter((row) => row.answer === answer);
      const row = rows.filter((each) => hits.has(each)).pop() || rows[rows.length - 1];
      if (!row) return;
      says.append(place ? " · " : "", make("span", { class: hits.has(row) && (chosen.size || words) ? "hit" : "" }, answer.c), " ", make("b", {}, saying(row) || one(row.f.change) || "-"));
    });
    const more = far.length + Math.max(0, near.length - 4);
    if (more) says.append(` · and ${more} more`);
    const box = make("details", { class: "item" }, make("summary", {}, make("span", { class: "id" }, item.id), says));
    box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) box.append(body(match)); });
    return box;
  };

  // -- list, pages, filters ------------------------------------------------------------------
  const list = () => {
    const pages = Math.max(1, Math.ceil(matching.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    $("list").replaceChildren(...matching.slice(page * PAGE, (page + 1) * PAGE).map(card));
    const button = (text, to) => make("button", { type: "button", disabled: to < 0 || to >= pages || to === page, onclick: () => flip(to) }, text);
    $("pages").replaceChildren(...(pages === 1 ? [] : [
      button("first", 0), button("previous", page - 1),
      make("span", {}, `page ${n(page + 1)} of ${n(pages)}`),
      button("next", page + 1), button("last", pages - 1),
    ]));
  };
  const flip = (to) => { page = to; list(); go("items"); focusItem(0); };
  const cards = () => [...$("list").children];
  const focusItem = (place) => { const all = cards(); if (all[place]) all[place].firstChild.focus(); };
  const move = (by) => {
    const all = cards(), now = all.findIndex((each) => each.contains(document.activeElement));
    const to = now < 0 ? (by > 0 ? 0 : all.length - 1) : now + by;
    if (to >= 0 && to < all.length) focusItem(to);
    else if (to >= all.length && (page + 1) * PAGE < matching.length) flip(page + 1);
    else if (to < 0 && page > 0) { flip(page - 1); focusItem(PAGE - 1); }
  };
  const field = make("input", { type: "search", placeholder: "search items", "aria-label": "Search items" });
  const draw = () => { search(); page = 0; list(); };
  field.addEventListener("input", () => { words = field.value; draw(); });

  const address = () => {
    const pairs = new URLSearchParams();
    for (const [name, wanted] of chosen) for (const value of wanted) pairs.append(name, value);
    const text = pairs.toString().replace(/\+/g, "%20");
    return text ? `#items?${text}` : "#items";
  };
  const titleOf = (name) => (chosen.has(name) ? `${name}: ${[...chosen.get(name)].join(", ")}` : name);
  const filters = () => {
    const menus = facets.map((name) => {
      const wanted = chosen.get(name);
      const rows = values(name).map((value) => {
        const box = make("input", { type: "checkbox", checked: Boolean(wanted && wanted.has(value)) });
        box.addEventListener("change", () => {
          const now = chosen.get(name) || new Set();
          if (box.checked) now.add(value); else now.delete(value);
          if (now.size) chosen.set(name, now); else chosen.delete(name);
          history.replaceState(null, "", address());
          draw();
          const menu = box.closest(".facet");
          menu.classList.toggle("on", chosen.has(name));
          menu.firstChild.replaceChildren(...visible(titleOf(name)));
        });
        return make("label", {}, box, make("span", {}, value), make("span", {}, n(counted.get(name).get(value))));
      });
      return make("details", { class: wanted ? "facet on" : "facet" }, make("summary", {}, titleOf(name)), make("div", {}, ...rows));
    });
    $("filters").replaceChildren(field, ...menus, make("button", { type: "button", onclick: clear }, "clear"));
  };
  const clear = () => {
    chosen = new Map(); words = field.value = "";
    history.replaceState(null, "", "#items");
    filters(); draw();
  };
  const follow = () => {
    const [where, asked] = location.hash.split("?");
    if (where !== "#items" || asked === undefined) return;
    chosen = new Map(); words = field.value = "";
    for (const [name, value] of new URLSearchParams(asked)) {
      if (!chosen.has(name)) chosen.set(name, new Set());
      chosen.get(name).add(value);
    }
    filters(); draw(); go("items");
    const all = cards();
    if (all.length === 1) all[0].open = true;
  };
  Object.assign(keys, {
    j: () => move(1), k: () => move(-1),
    "[": () => { if (page > 0) flip(page - 1); },
    "]": () => { if ((page + 1) * PAGE < matching.length) flip(page + 1); },
    "/": () => { go("items"); field.focus(); },
    x: clear,
  });
  window.addEventListener("hashchange", follow);
  // the same link again: the address does not change, the list may have
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#items?"]');
    if (link && link.getAttribute("href") === location.hash) { event.preventDefault(); follow(); }
  });
  filters(); draw(); follow();
})();
