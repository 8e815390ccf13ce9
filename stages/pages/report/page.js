"use strict";

// Dark and light: the system's choice until the button is pressed.
const root = document.documentElement;
const remembered = (value) => {
  try {
    if (value) localStorage.setItem("splatfix-theme", value);
    return localStorage.getItem("splatfix-theme");
  } catch {
    return null; // some browsers store nothing for files
  }
};
if (remembered()) root.dataset.theme = remembered();
document.getElementById("theme").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  remembered(root.dataset.theme);
});

// Tables: a click on a heading sorts by its column, a second one reverses; empty cells stay last.
function sortBy(table, column, descending) {
  const key = (row) => row.cells[column].dataset.key;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    return descending ? -order : order;
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

// Sliders: the images of the strip beside them; the range input moves the boundary.
const left = document.getElementById("left");
const right = document.getElementById("right");
const errors = document.getElementById("errors");
const psnr = document.getElementById("psnr");
const pictureOf = (view, method) => view.querySelector(`figure[data-method="${method}"] .picture`);
const errorOf = (view, method) => view.querySelector(`figure[data-method="${method}"] .error`);
function show(view, side, method) {
  const source = (errors.checked && errorOf(view, method)) || pictureOf(view, method);
  const picture = view.querySelector(side === "left" ? ".over" : ".under");
  picture.src = source.src;
  picture.alt = source.alt;
  picture.hidden = false;
  view.querySelector(`.tag.${side}`).textContent = method;
}
function showBoth(view) {
  show(view, "left", left.value);
  show(view, "right", right.value);
}

// Views: the worst, median and best by the PSNR of the right method over the left one. Ranks are
// among all views of the scene; of those that the page does not hold, the nearest one is shown.
function gainOf(of) {
  const truth = psnr.dataset.truth, alone = left.value === truth || left.value === right.value;
  if (right.value === truth) return left.value === truth ? 0 : of[left.value];
  return alone ? of[right.value] : of[right.value] - of[left.value];
}
function rankViews(scene, rows) {
  const gains = new Map(rows.map((row) => [row.view, gainOf(row.psnr)]));
  const order = [...gains.keys()].sort((a, b) => gains.get(a) - gains.get(b) || (a < b ? -1 : 1));
  const last = order.length - 1, names = new Map([[order.length >> 1, "median"], [last, "best"], [0, "worst"]]);
  const held = new Map([...scene.querySelectorAll(".view")].map((one) => [order.indexOf(one.dataset.view), one]));
  const shown = new Set();
  for (const place of names.keys()) {
    const free = [...held.keys()].filter((one) => !shown.has(one));
    free.sort((a, b) => Math.abs(a - place) - Math.abs(b - place));
    if (free.length) shown.add(free[0]);
  }
  const isGain = [left.value, right.value].every((one) => one !== psnr.dataset.truth) && left.value !== right.value;
  for (const place of [...held.keys()].sort((a, b) => a - b)) {
    const view = held.get(place), gain = gains.get(view.dataset.view);
    view.hidden = !shown.has(place);
    view.querySelector(".what b").textContent = names.get(place) || `${place + 1} of ${order.length}`;
    const sign = gain < 0 ? "\u2212" : isGain ? "+" : "";
    view.querySelector(".gain").textContent = `${sign}${Math.abs(gain).toFixed(2)} dB`;
    scene.append(view);
  }
}
function describeRanking() {
  const truth = psnr.dataset.truth, [a, b] = [left.value, right.value];
  const name = (text) => Object.assign(document.createElement("span"), { className: "method", textContent: text });
  const alone = a === truth || b === truth || a === b;
  const words = alone ? [name(b === truth ? a : b), " in every scene, by PSNR"]
    : [name(b), " in every scene, by gain over ", name(a)];
  document.getElementById("ranking")?.replaceChildren("The worst, median and best view of ", ...words);
}
function showAll() {
  for (const view of document.querySelectorAll(".view")) showBoth(view);
}
function choose() {
  const rows = JSON.parse(psnr.textContent);
  for (const scene of document.querySelectorAll(".scene")) rankViews(scene, rows[scene.dataset.scene]);
  describeRanking();
  showAll();
}

// Errors: the mean absolute difference to the ground truth over channels, as colour.
const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
function heat(share) {
  const place = Math.min(1, share) * (HEAT.length - 1), at = Math.min(HEAT.length - 2, Math.floor(place));
  return [0, 1, 2].map((channel) => HEAT[at][channel] + (place - at) * (HEAT[at + 1][channel] - HEAT[at][channel]));
}
const HEATS = Array.from({ length: 766 }, (_, sum) => heat(sum / 765 / psnr?.dataset.fullScale));
async function pixelsOf(image) {
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { canvas, context, pixels: context.getImageData(0, 0, canvas.width, canvas.height) };
}
async function fillErrors(view) {
  const truth = (await pixelsOf(pictureOf(view, psnr.dataset.truth))).pixels.data;
  for (const error of view.querySelectorAll(".error")) {
    const { canvas, context, pixels } = await pixelsOf(error.parentElement.querySelector(".picture"));
    const levels = pixels.data;
    for (let at = 0; at < levels.length; at += 4) {
      const sum = Math.abs(levels[at] - truth[at]) + Math.abs(levels[at + 1] - truth[at + 1])
        + Math.abs(levels[at + 2] - truth[at + 2]);
      [levels[at], levels[at + 1], levels[at + 2]] = HEATS[sum];
    }
    context.putImageData(pixels, 0, 0);
    error.src = URL.createObjectURL(await canvas.convertToBlob());
  }
  view.dataset.errors = "";
  if (errors.checked) showBoth(view);
}
async function fillAllErrors() {
  for (const view of document.querySelectorAll(".view")) await fillErrors(view);
}

if (left) {
  for (const one of [left, right]) one.addEventListener("change", choose);
  errors.addEventListener("change", showAll);
  for (const slider of document.querySelectorAll(".stage input")) {
    const move = () => slider.parentElement.style.setProperty("--split", `${slider.value}%`);
    slider.addEventListener("input", move);
    move();
  }
  showAll();
  fillAllErrors();
}

// Images of the strips enlarge on a click, or on Enter when they have the focus.
const large = document.getElementById("large");
function enlarge(image) {
  const picture = large.querySelector("img");
  picture.src = image.src;
  picture.alt = image.alt;
  const view = image.closest(".view").getAttribute("aria-label");
  large.querySelector("p").textContent = `${image.alt} · ${view}`;
  large.showModal();
}
for (const image of document.querySelectorAll(".strip img")) {
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  image.addEventListener("click", () => enlarge(image));
  image.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // else the same key presses the dialog's button
    enlarge(image);
  });
}
large.addEventListener("click", (event) => {
  if (event.target !== large.querySelector("p")) large.close();
});

// Print every scene.
addEventListener("beforeprint", () => {
  for (const scene of document.querySelectorAll("details")) scene.open = true;
});
