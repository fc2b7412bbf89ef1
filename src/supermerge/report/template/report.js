"use strict";
// Draws every chart at the widest width that fits, as SVG coloured by the page's style sheet.
const charts = JSON.parse(document.getElementById("charts").textContent);
const drawn = {};

function fitting(specs, room) {
  const widths = Object.keys(specs).map(Number).sort((a, b) => a - b);
  return widths.filter((width) => width <= room).pop() ?? widths[0];
}

async function draw(name) {
  const target = document.querySelector(`[data-chart="${name}"]`);
  const width = fitting(charts[name].specs, target.clientWidth);
  if (drawn[name] === width) return;
  drawn[name] = width;
  await vegaEmbed(target, { ...charts[name].specs[width], datasets: charts[name].data }, {
    actions: false,
    ast: true, // the page's policy forbids code made from strings
    renderer: "svg",
    tooltip: { disableDefaultStyle: true },
  });
  target.dataset.state = "drawn";
}

async function drawAll() {
  for (const name of Object.keys(charts)) await draw(name);
}

let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
drawAll();
