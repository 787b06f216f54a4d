"""Style and script of the report's page; both stand inside it, so that the page is one file.

Colours of text reach a contrast of 4.5:1 in both schemes. The script only sorts, hides and dims
what is there already: without it the page shows everything but the layers one by one.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1b1f27; --quiet: #5b6372; --line: #dfe3ea;
  --rest: #c6ccd6; --accent: #1a6f78; --bad: #a3333d; --good: #1c6b45;
  --shadow: 0 1px 2px rgb(20 25 35 / .06), 0 6px 20px rgb(20 25 35 / .06);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1217; --card: #181c23; --ink: #e8ebf1; --quiet: #9aa3b3; --line: #2b313b;
    --rest: #454c59; --accent: #5cc8c4; --bad: #ff8f93; --good: #6fd6a0;
    --shadow: 0 0 0 1px #232932;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums;
}
.wide { max-width: 1360px; margin: 0 auto; padding: 0 24px; }
header { padding: 48px 0 8px; }
.kind { margin: 0 0 6px; color: var(--accent); font-weight: 600; letter-spacing: .02em; }
h1 { margin: 0; font-size: clamp(26px, 4vw, 38px); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
.about { margin: 10px 0 0; color: var(--quiet); max-width: 76ch; overflow-wrap: anywhere; }
.figures { display: grid; gap: 12px; margin: 28px 0 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); }
.figures > div { background: var(--card); border-radius: 12px; padding: 14px 18px;
  box-shadow: var(--shadow); }
.figures dt { color: var(--quiet); font-size: 13px; }
.figures dd { margin: 2px 0 0; font-size: 26px; font-weight: 650; letter-spacing: -.01em; }
.figures small { display: block; font-size: 13px; font-weight: 400; letter-spacing: 0;
  color: var(--quiet); }
h2 { margin: 44px 0 14px; font-size: 21px; letter-spacing: -.01em; }
.charts { display: grid; gap: 16px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.charts figure { margin: 0; background: var(--card); border-radius: 12px; padding: 16px;
  box-shadow: var(--shadow); }
.charts img { display: block; width: 100%; max-width: 560px; height: auto; margin: 0 auto; }
figcaption { margin: 0 0 10px; font-weight: 600; }
.bar { position: sticky; top: 0; z-index: 2; margin-top: 16px; padding: 12px 0;
  background: var(--page); border-bottom: 1px solid var(--line); }
.bar > .wide { display: flex; flex-wrap: wrap; gap: 12px 24px; align-items: center; }
.key { display: flex; align-items: center; gap: 10px; flex: 1 1 330px; font-size: 13px;
  color: var(--quiet); }
.legend { display: flex; flex: 1; max-width: 460px; margin: 0; padding: 0; list-style: none;
  border-radius: 6px; overflow: hidden; }
.legend li { flex: 1; min-width: 12px; text-align: center; font-size: 12px; font-weight: 600;
  line-height: 24px; }
.legend.many li { min-width: 0; font-size: 10px; letter-spacing: -0.5px; }
.legend.many li:not(:nth-child(3n)) { font-size: 0; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; font-size: 14px; }
.controls[hidden] { display: none; }
.controls label { display: flex; gap: 7px; align-items: center; color: var(--quiet); }
select, button { font: inherit; color: var(--ink); background: var(--card); cursor: pointer;
  border: 1px solid var(--line); border-radius: 8px; padding: 5px 10px; }
button { min-width: 40px; }
input[type=range] { width: 130px; accent-color: var(--accent); }
output { min-width: 74px; color: var(--ink); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.gallery { display: grid; gap: 18px; margin: 20px 0 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 312px), 1fr)); }
.card { background: var(--card); border-radius: 14px; overflow: hidden;
  box-shadow: var(--shadow); display: flex; flex-direction: column; }
.card[hidden] { display: none; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; background: var(--card); }
.pair > * { position: relative; display: block; aspect-ratio: 1; }
.pair img, .pair canvas { display: block; width: 100%; height: 100%; object-fit: cover; }
.pair canvas { position: absolute; inset: 0; }
.pair canvas[hidden] { display: none; }
.text { padding: 12px 16px 14px; display: flex; flex-direction: column; flex: 1; }
.name { margin: 0; color: var(--quiet); font-size: 12.5px; font-weight: 400; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
.answer { margin: 2px 0 0; display: flex; justify-content: space-between; gap: 10px;
  font-size: 17px; font-weight: 650; }
.answer span:first-child { overflow-wrap: anywhere; }
.truth { margin: 1px 0 0; font-size: 13.5px; color: var(--quiet); overflow-wrap: anywhere; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.measures { margin: 10px 0 0; display: grid; grid-template-columns: auto 1fr auto;
  gap: 3px 10px; align-items: center; font-size: 13px; }
.measures dt { color: var(--quiet); } .measures dd { margin: 0; text-align: right; }
.track { height: 6px; border-radius: 3px; background: var(--line); overflow: hidden; }
.track i { display: block; height: 100%; background: var(--accent); border-radius: 3px; }
.blocks { display: block; width: 100%; margin: 12px 0 0; }
.blocks text { font-size: 7px; fill: var(--quiet); } .blocks path { fill: var(--rest);
  fill-opacity: .84; }
.parts { display: flex; flex-wrap: wrap; gap: 14px; margin: 12px 0 0; }
.parts figure { margin: 0; } .parts figcaption { font-size: 12px; font-weight: 400;
  color: var(--quiet); margin: 0 0 4px; }
.parts svg { display: block; } .on { fill: var(--ink); } .off { fill: var(--line); }
.exit { margin: 22px 0 8px; font-size: 16px; }
.exit span { margin-left: 8px; color: var(--quiet); font-weight: 400; font-size: 13.5px; }
.photos { display: grid; gap: 12px 8px; grid-template-columns: repeat(10, 1fr); }
.photos a { color: inherit; text-decoration: none; font-size: 13px; min-width: 0; }
.photos img { display: block; width: 100%; border-radius: 6px; margin-bottom: 4px; }
.photos b, .photos span { display: block; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; } .photos span { color: var(--quiet); font-size: 12px; }
.maps { display: flex; gap: 8px; margin: 12px 0 0; }
.maps figure { flex: 1; margin: 0; min-width: 0; }
.maps img, .maps i { display: block; width: 100%; aspect-ratio: 1; border-radius: 4px;
  background: var(--line); }
.maps figcaption { margin: 3px 0 0; font-size: 11.5px; font-weight: 400; color: var(--quiet);
  line-height: 1.3; }
.card { scroll-margin-top: 90px; } .card:target { outline: 2px solid var(--accent); }
.files { margin: auto 0 0; padding-top: 10px; font-size: 13px; }
a { color: var(--accent); } .files a { margin-right: 14px; white-space: nowrap; }
.unreadable { margin: 0; padding: 14px 20px 14px 38px; background: var(--card);
  border-radius: 12px; box-shadow: var(--shadow); overflow-wrap: anywhere; }
.unreadable span { color: var(--quiet); }
footer { margin: 48px 0 40px; color: var(--quiet); font-size: 13.5px; }
footer p { max-width: 84ch; margin: 0 0 8px; }
@media (max-width: 860px) { .photos { grid-template-columns: repeat(5, 1fr); } }
@media (max-width: 560px) { .wide { padding: 0 14px; } header { padding-top: 26px; }
  .bar { position: static; } .figures { grid-template-columns: 1fr 1fr; }
  .figures dd { font-size: 21px; } .figures > div { padding: 12px 14px; } }
@media print { .bar { position: static; } .controls { display: none; }
  .card, .charts figure, .figures > div { break-inside: avoid; box-shadow: none;
    border: 1px solid var(--line); } }
"""

SCRIPT = """
"use strict";
const find = (name) => document.getElementById(name);
const gallery = find("gallery"), cards = [...gallery.children];
const sort = find("sort"), direction = find("direction");
const show = find("show"), stops = find("stops");
const layer = find("layer"), layerName = find("layer-name"), play = find("play");
let sign = 1, timer = 0;

function arrange() {
  const key = sort.value;
  const by = (a, b) => sign * (a.dataset[key] - b.dataset[key]) ||
    a.dataset.order - b.dataset.order;
  gallery.append(...cards.sort(by));
  for (const card of cards) {
    card.hidden = Boolean(show && show.value && card.dataset.right !== show.value) ||
      Boolean(stops && stops.value && card.dataset.exit !== stops.value);
  }
}

function draw(card, number) {
  const canvas = card.querySelector("canvas"), grid = Number(card.dataset.grid);
  canvas.hidden = number === 0;
  if (!number) return;
  const photograph = card.querySelector("img"), side = photograph.naturalWidth;
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d"), size = side / grid;
  context.drawImage(photograph, 0, 0, side, side);
  context.fillStyle = getComputedStyle(card).getPropertyValue("--rest");
  context.globalAlpha = 0.84;
  const bits = atob(card.dataset.live), start = (number - 1) * grid * grid;
  for (let patch = 0; patch < grid * grid; patch++) {
    const bit = start + patch;
    if (bits.charCodeAt(bit >> 3) & (128 >> (bit & 7))) continue;
    context.fillRect((patch % grid) * size, Math.floor(patch / grid) * size, size, size);
  }
}

function step() {
  const number = Number(layer.value);
  layerName.textContent = number ? `layer ${number} of ${layer.max}` : "depth map";
  for (const card of cards) draw(card, number);
}

function stop() {
  clearInterval(timer);
  timer = 0;
  play.textContent = "Play";
}

sort.addEventListener("change", () => {
  sign = sort.value === "order" ? 1 : -1;
  direction.textContent = sign > 0 ? "↑" : "↓";
  arrange();
});
direction.addEventListener("click", () => {
  sign = -sign;
  direction.textContent = sign > 0 ? "↑" : "↓";
  arrange();
});
for (const choice of [show, stops]) if (choice) choice.addEventListener("change", arrange);
layer.addEventListener("input", () => { stop(); step(); });
play.addEventListener("click", () => {
  if (timer) { stop(); return; }
  play.textContent = "Stop";
  timer = setInterval(() => {
    layer.value = Number(layer.value) >= Number(layer.max) ? 0 : Number(layer.value) + 1;
    step();
  }, 650);
});
find("controls").hidden = false;
"""
