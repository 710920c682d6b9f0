"use strict";
(() => {
  const POLL_MS = 2000;
  const GIVE_UP_MS = 8000;
  const HELD_MS = 10000; // while somebody reads or walks through the tenants, their order stays
  const PAGE = 20;
  const SHOWN_MAX = 500;
  const WORDS = { ok: "ok", warn: "near limit", exhausted: "exhausted", suspended: "suspended" };

  const $ = (selector, from = document) => from.querySelector(selector);
  const params = new URLSearchParams(location.search);
  const asked = {
    tenant: (params.get("tenant") || "").slice(0, 256),
    state: params.get("state") in WORDS ? params.get("state") : "",
    sort: params.get("sort") === "name" ? "name" : "used",
    limit: PAGE,
  };

  // ---- numbers -------------------------------------------------------------------------------
  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
  const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
  const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

  const NONE = "–";
  const count = (n) => (Math.abs(n) < 1e7 ? whole : short).format(n);
  const dollars = (n) => (n === 0 || Math.abs(n) >= 0.01 ? (Math.abs(n) < 1e6 ? cents : short) : fine).format(n);
  const amount = (n, unit) => (unit === "usd" ? dollars(n) : n > 0 && n < 10 && n % 1 ? n.toFixed(1) : count(n));
  const rate = (n) => (n >= 1e5 ? short.format(n) : n >= 100 || n === 0 ? count(n) : n.toFixed(1));
  const percent = (share) => (share > 0 && share < 0.001 ? "<0.1\u00a0%" : `${(share * 100).toFixed(share && share < 0.0995 ? 1 : 0)}\u00a0%`);
  const at = (seconds) => clock.format(new Date(seconds * 1000));
  const latency = (s) => (s === null ? NONE : s < 0.0995 ? `${(s * 1000).toFixed(1)} ms` : s < 0.9995 ? `${Math.round(s * 1000)} ms` : `${s.toFixed(s < 9.995 ? 2 : 1)} s`);
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const span = (s) => {
    if (s === null) return NONE;
    const i = Math.max(0, UNITS.findIndex(([size]) => s >= size));
    if (s < 1) return "0 s";
    const [size, name] = UNITS[i];
    const rest = UNITS[i + 1] && Math.floor((s % size) / UNITS[i + 1][0]);
    return `${Math.floor(s / size)}\u00a0${name}${rest && s < size * 10 && i < 2 ? `\u00a0${rest}\u00a0${UNITS[i + 1][1]}` : ""}`;
  };
  const unitName = { tokens: "tokens", usd: "USD", requests: "requests", concurrent_requests: "at a time" };

  // ---- patching: what is the same is not touched ------------------------------------------------
  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const setAttr = (node, name, value) => { if (node.getAttribute(name) !== value) node.setAttribute(name, value); };
  const setClass = (node, name) => { if (node.className !== name) node.className = name; };
  const setWidth = (node, share) => {
    const width = `${(Math.max(0, Math.min(1, share)) * 100).toFixed(2)}%`;
    if (node.style.width !== width) node.style.width = width;
  };
  const make = (tag, className = "", role = "") => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (role) node.setAttribute("role", role);
    return node;
  };
  const ROLES = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
  // Said out loud, because a table that is laid out as blocks on a narrow screen is none otherwise.
  for (const node of document.querySelectorAll("table, thead, tbody, tr, thead td")) node.setAttribute("role", ROLES[node.tagName]);
  for (const node of document.querySelectorAll("thead th")) node.setAttribute("role", "columnheader");

  const named = (cell, text) => {
    let inner = cell.firstElementChild;
    if (!inner) { inner = cell.appendChild(make("bdi", "name")); }
    setText(inner, text);
    setAttr(inner, "title", text);
  };

  /** Keeps the children of `parent` in the order of `rows`, each made once. */
  const keyed = (parent, build, first = null) => {
    const known = new Map();
    return {
      update(rows, key, { keepOrder = false, stays = () => false } = {}) {
        const focused = document.activeElement;
        const wanted = new Set(rows.map(key));
        for (const [name, item] of known) {
          const isGone = !wanted.has(name);
          item.node.classList.toggle("gone", isGone);
          if (isGone && !stays(item.node)) { item.node.remove(); known.delete(name); }
        }
        let next = first ? first.nextSibling : parent.firstChild;
        for (const row of rows) {
          const name = key(row);
          let item = known.get(name);
          const isNew = !item;
          if (isNew) { item = build(row); known.set(name, item); }
          item.update(row);
          while (next && next.classList?.contains("gone")) next = next.nextSibling;
          if (keepOrder) { if (isNew) parent.append(item.node); }
          else if (item.node === next) next = next.nextSibling;
          else parent.insertBefore(item.node, next);
        }
        // A node that is moved loses the focus, although nobody took it away.
        if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
      },
    };
  };

  /** A table of simple rows. Each column: label in narrow layout, class, and how it is filled. */
  const simple = (id, columns, key) => {
    const section = document.getElementById(id);
    const list = keyed($("tbody", section), () => {
      const node = make("tr", "", "row");
      const cells = columns.map(([label, className], i) => {
        const cell = node.appendChild(make(i ? "td" : "th", className, i ? "cell" : "rowheader"));
        if (!i) cell.scope = "row";
        if (label) cell.dataset.label = label;
        return cell;
      });
      return { node, update: (row) => columns.forEach(([, , fill], i) => fill(cells[i], row)) };
    });
    return (rows, empty) => {
      list.update(rows, key);
      showEmpty(section, rows.length ? "" : empty);
    };
  };
  const showEmpty = (section, text) => {
    const note = $(".empty", section);
    setText(note, text);
    note.hidden = !text;
    $("table", section).hidden = Boolean(text);
  };
  const number = (label, get, className = "") => [label, `n ${className}`.trim(), (cell, row) => {
    const text = get(row);
    setText(cell, text);
    cell.classList.toggle("none", text === NONE);
    cell.classList.toggle("dim", text === "0");
  }];
  const bad = (label, get) => [label, "n", (cell, row) => {
    setText(cell, count(get(row)));
    cell.classList.toggle("bad", get(row) > 0);
    cell.classList.toggle("dim", get(row) === 0);
  }];

  // ---- tenants ---------------------------------------------------------------------------------
  const table = $("#tenants table");
  const LABELS = ["Committed", "Reserved", "Limit", "Per min (1)", "Per min (15)", "Runs out in", "Resets in"];

  const budgetRow = () => {
    const node = make("tr", "", "row");
    const cell = (className) => node.appendChild(make("td", className, "cell"));
    const name = cell("wrap"), state = cell("state"), used = cell("wide");
    const holder = used.appendChild(make("div", "used"));
    const bar = holder.appendChild(make("div", "bar", "img"));
    const committed = bar.appendChild(make("span", "committed"));
    const reserved = bar.appendChild(make("span", "reserved"));
    const share = holder.appendChild(make("span", "share"));
    const numbers = LABELS.map((label) => { const td = cell("n"); td.dataset.label = label; return td; });
    const id = name.appendChild(make("span")), unit = name.appendChild(make("small"));
    const update = (b, now) => {
      setText(id, b.id);
      const about = [...(b.models || []), ...(b.tiers || []).map((t) => `tier ${t}`)].join(", ");
      const window = b.window ? ` /\u00a0${b.window.text.replace(/^(\d+) s$/, "$1\u00a0s")}` : "";
      setText(unit, unitName[b.unit] + window + (about ? `, ${about} only` : ""));
      setClass(state, `state ${b.state}`);
      setText(state, WORDS[b.state]);
      setClass(holder, `used ${b.state}`);
      const scale = Math.max(b.limit, b.committed + b.reserved) || 1;
      setWidth(committed, b.committed / scale);
      setWidth(reserved, b.reserved / scale);
      const told = b.used_share === null ? NONE : percent(b.used_share);
      setText(share, told);
      setClass(share, b.used_share ? "share" : "share dim");
      setAttr(bar, "aria-label", `${told} used, ${percent(b.reserved / scale)} reserved`);
      const [c, r, l, one, fifteen, out, anew] = numbers;
      for (const [td, n] of [[c, b.committed], [r, b.reserved], [l, b.limit], [one, b.burn_per_minute_1], [fifteen, b.burn_per_minute_15]]) {
        setText(td, amount(n, b.unit));
        setAttr(td, "title", `${exact.format(n)} ${unitName[b.unit]}`);
        td.classList.toggle("dim", n === 0);
      }
      const isHeld = b.unit === "concurrent_requests"; // these are never used up, only in use
      for (const td of [c, one, fifteen]) { if (isHeld) { setText(td, NONE); td.removeAttribute("title"); } td.classList.toggle("none", isHeld); }
      setText(out, span(b.state === "exhausted" ? null : b.exhausted_in_seconds));
      setClass(out, `n ${b.exhausted_in_seconds === null || b.state === "exhausted" ? "none" : "soon"}`);
      setText(anew, span(b.window ? b.window.end - now : null));
      anew.classList.toggle("none", !b.window);
      if (b.window) setAttr(anew, "title", new Date(b.window.end * 1000).toLocaleString("en-GB"));
    };
    return { node, update };
  };

  let now = 0;
  const tenantRows = keyed(table, () => {
    const node = make("tbody", "", "rowgroup");
    node.tabIndex = -1;
    const head = make("th", "", "rowheader");
    head.scope = "rowgroup";
    const name = head.appendChild(make("bdi", "name"));
    head.append(" ");
    const plan = head.appendChild(make("small"));
    const note = make("td", "dim wide", "cell");
    note.colSpan = 10;
    const rows = [];
    const noteRow = make("tr", "", "row");
    const update = (tenant) => {
      node.dataset.tenant = tenant.tenant;
      setText(name, tenant.tenant);
      setAttr(name, "title", tenant.tenant);
      setText(plan, tenant.plan + (tenant.state === "suspended" ? ", suspended" : ""));
      setAttr(node, "aria-label", `${tenant.tenant}, ${WORDS[tenant.state]}`);
      while (rows.length > tenant.budgets.length) rows.pop().node.remove();
      while (rows.length < tenant.budgets.length) { const row = budgetRow(); node.insertBefore(row.node, noteRow.parentNode ? noteRow : null); rows.push(row); }
      const text = tenant.budgets.length === 0 ? "No budgets: nothing limits this tenant." : tenant.budgets_left_out ? `and ${tenant.budgets_left_out} more budgets` : "";
      setText(note, text);
      if (text && !noteRow.parentNode) { noteRow.append(note); node.append(noteRow); }
      if (!text && noteRow.parentNode) noteRow.remove();
      const firstRow = rows.length ? rows[0].node : noteRow;
      if (head.parentNode !== firstRow) firstRow.prepend(head);
      head.rowSpan = Math.max(1, node.children.length);
      tenant.budgets.forEach((budget, i) => rows[i].update(budget, now));
    };
    return { node, update };
  }, $("thead", table));

  let heldUntil = 0;
  const hold = () => { heldUntil = performance.now() + HELD_MS; };
  for (const kind of ["pointermove", "keydown", "focusin", "wheel"]) table.addEventListener(kind, hold, { passive: true });

  let isOther = false; // what was asked for is not what is shown
  const showTenants = (tenants) => {
    const { rows } = tenants;
    const wasHere = table.contains(document.activeElement);
    tenantRows.update(rows, (row) => row.tenant, {
      keepOrder: performance.now() < heldUntil,
      stays: (node) => !isOther && node.contains(document.activeElement),
    });
    isOther = false;
    rove(document.activeElement.closest("#tenants tbody"));
    if (wasHere && !table.contains(document.activeElement)) rowsNow()[0]?.focus();
    for (const button of document.querySelectorAll("#states button")) {
      const state = button.dataset.state;
      setText($("b", button), count(state ? tenants.states[state] : tenants.total));
      setAttr(button, "aria-pressed", String(asked.state === state));
    }
    const isFiltered = asked.tenant || asked.state;
    let text = "";
    if (!tenants.total) text = "No tenants yet. Name them under “tenants” in the settings: this page follows a reload.";
    else if (!rows.length) text = `No tenant ${asked.state ? `is ${WORDS[asked.state]}` : "is here"}${asked.tenant ? ` whose name contains “${asked.tenant}”` : ""}. Esc shows all of them.`;
    showEmpty($("#tenants"), text);
    setText($("#how-many"), text ? "" : `${count(rows.length)} of ${count(tenants.matching)}${isFiltered ? " that match" : ""}, ${asked.sort === "used" ? "the most used first" : "by name"}.`);
    const hasMore = tenants.matching > rows.length && asked.limit < SHOWN_MAX;
    $("#show-more").hidden = !hasMore;
    if (tenants.matching > rows.length && !hasMore) setText($("#how-many"), `${$("#how-many").textContent} Filter by name to see others.`);
  };

  // ---- the other tables --------------------------------------------------------------------------
  const showModels = simple("models", [
    ["", "", (cell, m) => named(cell, m.model || "not known")],
    number("Requests", (m) => count(m.requests), "g"), bad("Failed", (m) => m.failed),
    number("Output tokens/s, now", (m) => rate(m.tokens_per_second_now), "g"), number("Output tokens/s, mean", (m) => rate(m.tokens_per_second)),
    ...["now", "median", "p5"].map((q) => number(`Stream tokens/s, ${q === "p5" ? "slowest 5 %" : q}`, (m) => (m.stream_tokens_per_second[q] === null ? NONE : rate(m.stream_tokens_per_second[q])))),
    ...["now", "median", "p95"].map((q) => number(`First token, ${q}`, (m) => latency(m.first_token_seconds[q]))),
  ], (m) => m.model);

  // istiod names a cluster outbound|8080|v1|adapter.models.svc.cluster.local
  const clusterName = (name) => {
    const [direction, port, subset, host, ...rest] = name.split("|");
    return host && !rest.length && direction.endsWith("bound") ? `${host.replace(/\.svc\.cluster\.local$/, "")}:${port}${subset ? ` ${subset}` : ""}` : name;
  };
  const showHops = simple("hops", [
    ["", "", (cell, h) => { named(cell, clusterName(h.cluster)); setAttr(cell.firstElementChild, "title", h.cluster); }],
    ["", "dim", (cell, h) => setText(cell, h.is_model ? "model" : "other")],
    number("Requests", (h) => count(h.requests)), bad("5xx", (h) => h.failed),
    ...[["Now", "now"], ["Median", "median"], ["p95", "p95"]].map(([label, q]) => number(label, (h) => latency(h.latency_seconds[q]))),
    ["", "wide", (cell, h) => {
      if (!cell.firstChild) {
        const holder = cell.appendChild(make("div", "used"));
        holder.appendChild(make("div", "bar", "img")).appendChild(make("span", "committed"));
        holder.appendChild(make("span", "share"));
      }
      setWidth($(".committed", cell), h.share);
      setText($(".share", cell), percent(h.share));
      setAttr($(".bar", cell), "aria-label", `${percent(h.share)} of all waiting`);
    }],
  ], (h) => h.cluster);

  const showTiers = simple("tiers", [
    ["", "", (cell, t) => named(cell, t.tier)],
    ["", "dim wrap", (cell, t) => setText(cell, t.model || "no longer in the settings")],
    number("Served", (t) => count(t.requests)), number("Downgraded from", (t) => count(t.downgraded)),
  ], (t) => t.tier);

  const KINDS = { refused: "refused", downgraded: "downgraded", unattributed: "passed unseen" };
  const showNews = simple("news", [
    ["", "", (cell, n) => { setText(cell, at(n.last)); setAttr(cell, "title", n.times > 1 ? `first at ${at(n.first)}` : ""); }],
    ["", "", (cell, n) => { setText(cell, KINDS[n.kind] + (n.kind === "refused" && n.status ? ` ${n.status}` : "")); setClass(cell, n.kind === "downgraded" ? "" : "bad"); }],
    ["", "wrap", (cell, n) => named(cell, n.tenant || "nobody we know")],
    ["", "wrap", (cell, n) => setText(cell, n.downgraded_from ? `${n.downgraded_from} → ${n.tier}` : n.tier)],
    ["", "dim wrap whole", (cell, n) => setText(cell, n.kind === "unattributed" ? "a filter failed open" : n.reason.replaceAll("_", " "))],
    number("Times", (n) => count(n.times)),
  ], (n) => JSON.stringify([n.kind, n.tenant, n.kind === "refused" ? n.reason : "", n.tier, n.downgraded_from]));

  const showAlarms = keyed($("#alarms"), () => { const node = make("p", "alarm"); return { node, update: (alarm) => setText(node, alarm.text) }; });
  const withoutStore = (o) => {
    const by = Object.entries(o.ledger.without_store).filter(([, n]) => n).map(([policy, n]) => `${count(n)} by ${policy}`);
    return by.length ? `\nDecided without it since the service began: ${by.join(", ")}` : "";
  };
  const alarmsOf = (o) => {
    const reload = o.settings.last_reload;
    return [
      o.not_ready && { name: "ready", text: `Not ready: ${o.not_ready}` },
      o.ledger.problem && { name: "ledger", text: `Ledger: ${o.ledger.problem}${withoutStore(o)}` },
      reload && !reload.is_in_force && { name: "reload", text: `The settings changed at ${at(reload.at)} and were refused; those of ${at(o.settings.in_force_since)} stay in force.\n${reload.problems.slice(0, 5).join("\n")}${reload.problems.length > 5 ? `\nand ${reload.problems.length - 5} more` : ""}` },
      o.settings.needs_restart.length && { name: "restart", text: `Changed in the settings, and not in force before a restart: ${o.settings.needs_restart.join(", ")}` },
    ].filter(Boolean);
  };

  const QUIET = "No request in the last five minutes. If there were some, their records did not come: look at Delivery in docs/operations.md.";
  const show = (o) => {
    now = o.at;
    showAlarms.update(alarmsOf(o), (alarm) => alarm.name);
    showTenants(o.tenants);
    showModels(o.models, "No models yet. Name them under “models” in the settings.");
    const waited = o.hops.reduce((sum, hop) => sum + hop.seconds, 0) || 1;
    showHops(o.hops.map((hop) => ({ ...hop, share: hop.seconds / waited })), QUIET);
    showTiers(o.tiers, "No tiers yet. Name them under “tiers” in the settings.");
    showNews(o.news, "Nothing was refused or downgraded since the service began.");
    const refused = Object.entries(o.refusals).sort((a, b) => b[1] - a[1]).map(([reason, n]) => `${count(n)} ${reason.replaceAll("_", " ")}`);
    setText($("#refusals"), refused.length ? `in 5 minutes: ${refused.slice(0, 4).join(", ")}` : "");
    const facts = [`${count(o.ledger.reservations_held)} in flight`];
    if (o.at - o.counting_since < 300) facts.push(`last minutes counted since ${at(o.counting_since)}`);
    setText($("#facts"), facts.join(" · "));
    const { exhausted } = o.tenants.states;
    document.title = exhausted ? `${count(exhausted)} exhausted · Budgets` : "Budgets";
  };

  // ---- asking ----------------------------------------------------------------------------------
  let last = 0; // when the answer came that is shown
  let isLive = null;
  let timer = 0;
  let current = null;

  const say = (live, text) => {
    document.body.classList.toggle("live", live);
    document.body.classList.toggle("stale", !live);
    setText($("#when"), text);
    // Whoever listens is told of a change, not of every answer.
    if (isLive !== live) {
      if (isLive !== null || !live) setText($("#said"), live ? "Live again." : text);
      isLive = live;
    }
    if (!live && !document.title.startsWith("stale")) document.title = `stale · ${document.title}`;
  };

  const ask = async () => {
    clearTimeout(timer);
    if (current) current.abort();
    const mine = current = new AbortController();
    const limit = setTimeout(() => mine.abort("slow"), GIVE_UP_MS);
    try {
      const query = new URLSearchParams(Object.entries(asked).filter(([, value]) => value));
      const answer = await fetch(`/budgets.json?${query}`, { signal: mine.signal, cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(`the service says ${answer.status}`);
      const overview = await answer.json();
      if (mine !== current) return;
      show(overview);
      last = Date.now() / 1000;
      say(true, `live, ${at(last)}`);
    } catch (error) {
      if (mine !== current) return;
      const why = mine.signal.aborted ? "no answer" : error instanceof TypeError ? "can’t reach the service" : error.message;
      say(false, last ? `stale since ${at(last)}: ${why}` : `${why}; trying again`);
    } finally {
      clearTimeout(limit);
      if (mine === current && !document.hidden) timer = setTimeout(ask, POLL_MS);
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { clearTimeout(timer); } else { ask(); }
  });

  // ---- asking for something else -----------------------------------------------------------------
  const filter = $("#filter");
  const sort = $("#sort");
  const want = (change) => {
    Object.assign(asked, { limit: PAGE }, change);
    heldUntil = 0;
    isOther = true;
    if (filter.value.trim() !== asked.tenant) filter.value = asked.tenant;
    sort.value = asked.sort;
    const shown = new URLSearchParams();
    for (const name of ["tenant", "state"]) if (asked[name]) shown.set(name, asked[name]);
    if (asked.sort !== "used") shown.set("sort", asked.sort);
    history.replaceState(null, "", `${location.pathname}${shown.size ? `?${shown}` : ""}${location.hash}`);
    ask();
  };
  let typing = 0;
  filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => want({ tenant: filter.value.trim() }), 150); });
  sort.addEventListener("change", () => want({ sort: sort.value }));
  $("#states").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) want({ state: button.dataset.state });
  });
  $("#show-more").addEventListener("click", () => want({ limit: Math.min(SHOWN_MAX, asked.limit + 4 * PAGE) }));

  // ---- keyboard --------------------------------------------------------------------------------
  const rowsNow = () => [...table.tBodies];
  /** One tenant at a time can be reached with Tab; arrows lead to the others. */
  const rove = (chosen) => {
    const rows = rowsNow();
    const one = chosen || rows.find((row) => row.tabIndex === 0) || rows[0];
    for (const row of rows) if ((row === one) !== (row.tabIndex === 0)) row.tabIndex = row === one ? 0 : -1;
  };
  const STEPS = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 };
  const walk = (key) => {
    const rows = rowsNow();
    const here = rows.indexOf(document.activeElement.closest?.("#tenants tbody"));
    const to = key === "Home" ? 0 : key === "End" ? rows.length - 1 : here < 0 ? 0 : here + STEPS[key];
    const row = rows[Math.max(0, Math.min(rows.length - 1, to))];
    if (!row) return;
    rove(row);
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input, select");
    const row = event.target.closest?.("#tenants tbody");
    if (event.key === "Escape") {
      if (event.target === filter && !filter.value) filter.blur();
      clearTimeout(typing);
      filter.value = "";
      if (asked.tenant || asked.state) want({ tenant: "", state: "" });
    } else if (event.key === "/" && !isTyping) {
      event.preventDefault();
      filter.focus();
      filter.select();
    } else if (event.key === "ArrowDown" && event.target === filter) {
      event.preventDefault();
      walk("ArrowDown");
    } else if (row && event.key === "Enter") {
      want({ tenant: row.dataset.tenant, state: "" });
    } else if (row && (event.key in STEPS || event.key === "Home" || event.key === "End")) {
      event.preventDefault();
      walk(event.key);
    } else if (!isTyping && (event.key === "j" || event.key === "k")) {
      walk(event.key);
    }
  });

  filter.value = asked.tenant;
  sort.value = asked.sort;
  ask();
})();
