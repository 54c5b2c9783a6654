// Search, counts, theme. The page is complete without it: the filter by verdict is style alone.
"use strict";
(() => {
  const root = document.documentElement;
  const search = document.getElementById("search");
  const theme = document.getElementById("theme");
  const found = document.getElementById("found");
  const radios = [...document.querySelectorAll('input[name="verdict"]')];
  const items = [...document.querySelectorAll("[data-item]")];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const sections = [...document.querySelectorAll("main > section")];

  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = radios.find((r) => r.checked).value;
    items.forEach((item, i) => {
      item.hidden = !words.every((word) => texts[i].includes(word));
    });
    for (const group of document.querySelectorAll(".file")) {
      group.hidden = ![...group.querySelectorAll(".card")].some((card) => !card.hidden);
    }
    let shown = 0;
    for (const section of sections) {
      const all = [...section.querySelectorAll("[data-item]")];
      const left = all.filter((item) => !item.hidden && (verdict === "all" || !item.dataset.verdict || item.dataset.verdict === verdict)).length;
      shown += verdict === "all" || all.some((item) => item.dataset.verdict) ? left : 0;
      const total = all.length.toLocaleString("en");
      section.querySelector("[data-count]").textContent = left === all.length ? total : `${left.toLocaleString("en")} of ${total}`;
      section.querySelector(".nothing").hidden = left > 0;
    }
    found.textContent = words.length || verdict !== "all" ? `${shown} shown` : "";
  };

  const showAll = () => {
    search.value = "";
    document.getElementById("show-all").checked = true;
    apply();
  };

  const arrive = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && !target.getClientRects().length) {
      showAll();
      target.scrollIntoView();
    }
  };

  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => {
    theme.textContent = dark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", dark() ? "Change to light colours" : "Change to dark colours");
  };

  // A browser may refuse storage to a local file: the choice then lasts as long as the page.
  try {
    const kept = localStorage.getItem("minilong-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {}

  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("minilong-theme", root.dataset.theme);
    } catch {}
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  search.form.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", apply);
  for (const radio of radios) radio.addEventListener("change", apply);
  addEventListener("hashchange", arrive);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && event.target !== search) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && event.target === search) {
      showAll();
    }
  });
  const folded = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = folded();
    for (const item of opened) item.open = true;
  });
  addEventListener("afterprint", () => {
    for (const item of opened) item.open = false;
  });

  search.hidden = theme.hidden = false;
  label();
  apply();
  arrive();
})();
