"use strict";
// a picture or clip that appears several times takes its data from the first element
for (const copy of document.querySelectorAll("[data-same]")) copy.src = sourceOf(copy.dataset.same);
function sourceOf(id) {
  return document.getElementById(id)?.src ?? "";
}

// a click on a column heading sorts the table, numbers before text; the third click restores the first order
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0], first = [...body.rows];
  table.tHead.querySelectorAll("button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.closest("th"), before = head.getAttribute("aria-sort");
    const next = before === "descending" ? "ascending" : before === "ascending" ? "none" : "descending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    if (next !== "none") head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1, key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const rows = next === "none" ? first : [...first].sort((a, b) => {
      if (a.className !== b.className) return a.className ? 1 : -1;  // grey rows, which are not results, stay at the bottom
      const [x, y] = [key(a), key(b)], [n, m] = [parseFloat(x), parseFloat(y)];
      if (isNaN(n) !== isNaN(m)) return isNaN(n) ? 1 : -1;  // cells without a number stay at the bottom
      return sign * (isNaN(n) ? x.localeCompare(y) : n - m);
    });
    body.append(...rows);
  }));
}

// clips of a row play together from the start, with one button: controls of the browser would cover small clips
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
