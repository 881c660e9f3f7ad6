"use strict";
// Tables: a click on a heading sorts within each block; a field above long ones filters the lines.
for (const table of document.querySelectorAll("table.data")) {
  const bodies = [...table.tBodies];
  const lines = bodies.map(body => [...body.rows].filter(row => !row.classList.contains("block")));
  const value = (row, place) => {
    const cell = row.cells[place];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;  // what has no value goes last
    return typeof a === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true});
  };
  const heads = [...table.querySelector("tr.heads").cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = {none: "ascending", ascending: "descending", descending: "none"}[head.ariaSort || "none"];
      heads.forEach(other => { other.ariaSort = null; });
      head.ariaSort = next === "none" ? null : next;
      bodies.forEach((body, block) => {
        const order = [...lines[block]];
        if (next !== "none") {
          order.sort((a, b) => {
            const [x, y] = [value(a, place), value(b, place)];
            const sign = next === "descending" && typeof x === typeof y ? -1 : 1;
            return sign * compare(x, y);
          });
        }
        body.append(...order);
      });
    });
  });
  if (lines.flat().length > 5) {
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Filter lines";
    field.setAttribute("aria-label", "Filter the lines of this table");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      bodies.forEach((body, block) => {
        const heading = body.querySelector("tr.block");
        const above = heading ? heading.textContent : "";
        for (const row of lines[block]) {
          const text = (above + " " + row.textContent).toLowerCase();
          row.hidden = !words.every(word => text.includes(word));
        }
        if (heading) heading.hidden = lines[block].every(row => row.hidden);
      });
    });
    table.closest(".scroll").before(field);
  }
}
// Figures: the nearest labelled point under the pointer, in words.
for (const figure of document.querySelectorAll("figure[data-points]")) {
  const {labels, axes, points} = JSON.parse(figure.dataset.points);
  const plot = figure.querySelector(".plot");
  const tip = document.createElement("div"), ring = document.createElement("div");
  tip.className = "tip"; ring.className = "ring";
  tip.hidden = ring.hidden = true;
  plot.append(ring, tip);
  const show = event => {
    const box = plot.getBoundingClientRect();
    let best = null, least = 22 ** 2;
    for (const point of points) {
      const far = (point[0] * box.width + box.left - event.clientX) ** 2
                + (point[1] * box.height + box.top - event.clientY) ** 2;
      if (far < least) [best, least] = [point, far];
    }
    tip.hidden = ring.hidden = best === null;
    if (best === null) return;
    const [left, top, axis, label, x, y] = best;
    tip.textContent = `${labels[label]}\n${axes[axis][0]}: ${x}\n${axes[axis][1]}: ${y}`;
    for (const shown of [tip, ring]) {
      shown.style.left = `${100 * left}%`;
      shown.style.top = `${100 * top}%`;
    }
    tip.classList.toggle("leftwards", left > 0.6);
    tip.classList.toggle("upwards", top > 0.6);
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", () => { tip.hidden = ring.hidden = true; });
}
