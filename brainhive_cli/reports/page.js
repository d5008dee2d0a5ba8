"use strict";
// pictures and clips that appear again are held once
for (const again of document.querySelectorAll("[data-same]")) again.src = held(again.dataset.same);
function held(id) {
  return document.getElementById(id)?.src ?? "";
}

// tables sort by the value of a cell, numbers before text; a third click gives the first order back
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0], first = [...body.rows];
  table.tHead.querySelectorAll("button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.closest("th"), before = head.getAttribute("aria-sort");
    const next = before === "descending" ? "ascending" : before === "ascending" ? "none" : "descending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    if (next !== "none") head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1, key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const rows = next === "none" ? first : [...first].sort((a, b) => {
      if (a.className !== b.className) return a.className ? 1 : -1;  // what is no result stays below
      const [x, y] = [key(a), key(b)], [n, m] = [parseFloat(x), parseFloat(y)];
      if (isNaN(n) !== isNaN(m)) return isNaN(n) ? 1 : -1;  // a cell without a number stays below
      return sign * (isNaN(n) ? x.localeCompare(y) : n - m);
    });
    body.append(...rows);
  }));
}

// clips of a row play together, from their start; the browser's own controls would cover clips of this size
for (const row of document.querySelectorAll(".row, .pairs")) {
  const clips = [...row.querySelectorAll(".tile video")];
  if (!clips.length) continue;
  const button = document.createElement("button");
  const toggle = () => {
    const plays = clips.some((clip) => !clip.paused);
    for (const clip of clips) { if (plays) clip.pause(); else { clip.currentTime = 0; clip.play().catch(() => {}); } }
    button.textContent = plays ? "▶ play" : "❚❚ pause";
  };
  for (const clip of clips) { clip.controls = false; clip.addEventListener("click", toggle); }
  Object.assign(button, { type: "button", className: "play", textContent: "▶ play", onclick: toggle });
  if (row.matches(".row")) clips[0].after(button);
  else row.append(button);
}

for (const button of document.querySelectorAll("button.copy")) button.addEventListener("click", async () => {
  const text = document.getElementById(button.dataset.of);
  try { await navigator.clipboard.writeText(text.textContent); button.textContent = "copied"; }
  catch { getSelection().selectAllChildren(text); button.textContent = "selected: press Ctrl-C"; }
});
