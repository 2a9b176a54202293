// What was chosen, and who is told when it changes.

const data = JSON.parse(byId("data").textContent);
const pictures = new Pictures(data);
const panel = new WellPanel(data, pictures);
const plate = new PlateGrid(data, openWell);
const charts = new Charts(data, (place) => openWell(place));

const { rows, columns } = data.plate;
const GROUPINGS = [
  ...data.columns.filter((column) => column.condition),
  { title: "column", values: data.wells.map((well) => columns[well.place % columns.length]) },
  { title: "row", values: data.wells.map((well) => rows[Math.floor(well.place / columns.length)]) },
  { title: "all wells", values: data.wells.map(() => "all wells") },
];
const state = { column: data.start, grouping: 0, view: "values", clip: false };

function chosenColumn() {
  return data.columns[state.column];
}

function openWell(place, byKeyboard = false) {
  const well = plate.wells.get(place);
  plate.mark(place);
  panel.show(well, chosenColumn());
  history.replaceState(null, "", `#${well.path}`);
  if (byKeyboard) byId("well").focus();
}

function step(direction) {
  const places = [...plate.wells.keys()].sort((a, b) => a - b);
  const next = places[(places.indexOf(panel.well.place) + direction + places.length) % places.length];
  openWell(next);
}

function drawColumn() {
  const column = chosenColumn();
  plate.paint(column, state.clip);
  byId("clip-label").hidden = !column.number || state.view === "images";
  charts.controls(state.column, column);
  if (panel.well) byId("well-text").replaceChildren(...panel.text(panel.well, column));
  return drawSpread();
}

function drawSpread() {
  return charts.draw(chosenColumn(), GROUPINGS[state.grouping]);
}

async function drawView() {
  const images = state.view === "images";
  byId("legend").hidden = images;
  byId("sheet-channels").hidden = !images || data.plate.channels.length < 2;
  byId("clip-label").hidden = images || !chosenColumn().number;
  plate.showImages(images ? await pictures.sheet() : null);
}

function channelBoxes() {
  return data.plate.channels.map((channel, index) =>
    checkbox(channel.name, pictures.channels.has(index), `#${channel.color}`, (wanted) => {
      if (wanted) pictures.channels.add(index);
      else pictures.channels.delete(index);
      drawChannels();
      drawView();
      if (panel.well) panel.show(panel.well, chosenColumn());
    }),
  );
}

function drawChannels() {
  for (const id of ["channels", "sheet-channels"]) {
    const at = [...byId(id).querySelectorAll("input")].indexOf(document.activeElement);
    byId(id).replaceChildren(element("legend", { class: "hidden" }, "Channels"), ...channelBoxes());
    if (at >= 0) byId(id).querySelectorAll("input")[at].focus();
  }
}

function fillSelect(select, options, chosen, onchange) {
  const groups = new Map();
  for (const [index, { title, group }] of options.entries()) {
    const option = element("option", { value: String(index), selected: index === chosen }, title);
    if (!group) select.append(option);
    else {
      if (!groups.has(group)) groups.set(group, select.appendChild(element("optgroup", { label: group })));
      groups.get(group).append(option);
    }
  }
  select.addEventListener("change", () => onchange(Number(select.value)));
}

const THEMES = [["", "Auto"], ["light", "Light"], ["dark", "Dark"]];

function nextTheme() {
  const root = document.documentElement;
  const at = (THEMES.findIndex(([theme]) => theme === (root.dataset.theme ?? "")) + 1) % THEMES.length;
  root.dataset.theme = THEMES[at][0];
  byId("theme-name").textContent = THEMES[at][1];
  byId("theme").setAttribute("aria-label", `Colour scheme: ${THEMES[at][1]}`);
  drawSpread();
}

function wellOfAddress() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  return data.wells.find((well) => well.path === wanted);
}

fillSelect(byId("column"), data.columns, state.column, (index) => {
  state.column = index;
  drawColumn();
});
fillSelect(byId("group"), GROUPINGS, state.grouping, (index) => {
  state.grouping = index;
  drawSpread();
});
for (const radio of document.querySelectorAll("[name=view]")) {
  radio.addEventListener("change", () => {
    state.view = radio.value;
    drawView();
  });
}
byId("clip").addEventListener("change", (event) => {
  state.clip = event.target.checked;
  plate.paint(chosenColumn(), state.clip);
});
byId("theme").addEventListener("click", nextTheme);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("well").addEventListener("keydown", (event) => {
  if (event.key === "Escape") plate.buttons[plate.place].focus({ focusVisible: true });
});
addEventListener("hashchange", () => {
  const well = wellOfAddress();
  if (well) openWell(well.place);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawSpread);

drawChannels();
const ready = drawColumn();
const first = wellOfAddress() ?? data.wells.find((well) => well.state !== "missing");
byId("well").hidden = !data.wells.length;
if (first) {
  plate.mark(first.place);
  panel.show(plate.wells.get(first.place), chosenColumn());
}
ready.then(() => document.documentElement.setAttribute("data-ready", ""));
