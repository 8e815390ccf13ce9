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
function show(view, side, method) {
  const figure = view.querySelector(`figure[data-method="${method}"]`);
  const wanted = errors.checked && figure.querySelector(".error");
  const source = wanted || figure.querySelector(".picture");
  const picture = view.querySelector(side === "left" ? ".over" : ".under");
  picture.src = source.src;
  picture.alt = source.alt;
  picture.hidden = false;
  view.querySelector(`.tag.${side}`).textContent = method;
}
function showAll() {
  for (const view of document.querySelectorAll(".view")) {
    show(view, "left", left.value);
    show(view, "right", right.value);
  }
}
if (left) {
  for (const one of [left, right, errors]) one.addEventListener("change", showAll);
  for (const slider of document.querySelectorAll(".stage input")) {
    const move = () => slider.parentElement.style.setProperty("--split", `${slider.value}%`);
    slider.addEventListener("input", move);
    move();
  }
  showAll();
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
