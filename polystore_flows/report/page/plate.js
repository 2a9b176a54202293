// The plate as a grid of buttons: colours, pictures, hover and keyboard.

class PlateGrid {
  constructor(data, open) {
    this.data = data;
    this.table = byId("plate");
    this.buttons = [...this.table.querySelectorAll("button")];
    this.width = data.plate.columns.length;
    this.wells = new Map(data.wells.map((well, index) => [well.place, { ...well, index }]));
    this.open = open;
    this.place = data.wells.find((well) => well.state !== "missing")?.place ?? 0;
    this.buttons[this.place].tabIndex = 0;
    for (const [place, button] of this.buttons.entries()) {
      button.style.backgroundPosition = this.sheetPosition(place);
      button.dataset.state = this.wells.get(place)?.state ?? "empty";
    }
    this.listen();
  }

  sheetPosition(place) {
    const share = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0);
    const rows = this.data.plate.rows.length;
    return `${share(place % this.width, this.width)}% ${share(Math.floor(place / this.width), rows)}%`;
  }

  name(place) {
    const { rows, columns } = this.data.plate;
    return this.wells.get(place)?.path ?? `${rows[Math.floor(place / this.width)]}/${columns[place % this.width]}`;
  }

  paint(column, clip) {
    const scale = scaleOf(column, clip);
    const roomy = this.buttons.length <= 96;
    for (const [place, button] of this.buttons.entries()) {
      const well = this.wells.get(place);
      const value = well ? column.values[well.index] : null;
      button.dataset.value = value === null ? "none" : "some";
      const colour = value === null ? "" : scale.colour(value);
      button.style.setProperty("--well", colour);
      button.style.setProperty("--on", colour && inkOn(colour));
      button.textContent = roomy && value !== null ? show(value) : "";
      const state = this.state(well);
      const told = state && value === null ? [state] : [show(value), ...(state ? [state] : [])];
      button.setAttribute("aria-label", `${this.name(place)}: ${told.join(", ")}`);
    }
    this.column = column;
    byId("legend").replaceChildren(...scale.legend(), ...this.keys(column));
  }

  state(well) {
    if (!well) return "no images";
    return { missing: "in a table, but without images", failed: "could not be read" }[well.state];
  }

  keys(column) {
    const found = [
      ["none", "no value", this.data.wells.some((w, i) => column.values[i] === null && (w.state === "ok" || w.state === "partial"))],
      ["missing", "no images", this.data.wells.some((well) => well.state === "missing")],
      ["failed", "could not be read, all or in part", this.data.wells.some((well) => well.problems.length)],
    ];
    return found.filter(([, , there]) => there).map(([kind, text]) => element("span", { class: "key" }, element("span", { class: `swatch ${kind}` }), text));
  }

  showImages(url) {
    this.table.dataset.view = url ? "images" : "values";
    this.table.style.setProperty("--sheet", url ? `url(${url})` : "none");
  }

  mark(place) {
    this.table.querySelector("[aria-current]")?.removeAttribute("aria-current");
    this.buttons[place].setAttribute("aria-current", "true");
    this.rove(place);
  }

  rove(place) {
    this.buttons[this.place].tabIndex = -1;
    this.place = place;
    this.buttons[place].tabIndex = 0;
  }

  listen() {
    const placeOf = (event) => this.buttons.indexOf(event.target.closest("#plate button"));
    const on = (name, action) => this.table.addEventListener(name, (event) => {
      const place = placeOf(event);
      if (place >= 0) action(place, event);
    });
    on("click", (place, event) => this.wells.has(place) && this.open(place, event.detail === 0));
    on("focusin", (place, event) => {
      this.rove(place);
      if (event.target.matches(":focus-visible")) this.tell(place);
    });
    on("pointerover", (place) => this.tell(place));
    this.table.addEventListener("pointerleave", () => this.hush());
    this.table.addEventListener("focusout", () => this.hush());
    on("keydown", (place, event) => this.key(place, event));
  }

  key(place, event) {
    const width = this.width;
    const row = place - (place % width);
    const last = this.buttons.length - 1;
    const steps = {
      ArrowLeft: place % width ? place - 1 : place,
      ArrowRight: (place + 1) % width ? place + 1 : place,
      ArrowUp: place - width >= 0 ? place - width : place,
      ArrowDown: place + width <= last ? place + width : place,
      Home: event.ctrlKey ? 0 : row,
      End: event.ctrlKey ? last : row + width - 1,
      PageUp: place % width,
      PageDown: last - width + 1 + (place % width),
    };
    if (event.key === "Escape") this.hush();
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.buttons[steps[event.key]].focus({ focusVisible: true });
  }

  tell(place) {
    const well = this.wells.get(place);
    const { data, column } = this;
    const lines = [];
    if (well) {
      const value = column.values[well.index];
      lines.push(`${column.title}: ${show(value)}`);
      const conditions = data.columns.filter((other) => other.condition && other !== column);
      for (const other of conditions.slice(0, 6)) {
        if (other.values[well.index] !== null) lines.push(`${other.name}: ${show(other.values[well.index])}`);
      }
    }
    const state = this.state(well);
    if (state) lines.push(state);
    const tip = byId("tip");
    tip.replaceChildren(element("strong", {}, this.name(place)), ...lines.map((line) => element("span", {}, line)));
    tip.hidden = false;
    const at = this.buttons[place].getBoundingClientRect();
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(at.left + at.width / 2 - box.width / 2, 8), innerWidth - box.width - 8);
    const above = at.top - box.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  }

  hush() {
    byId("tip").hidden = true;
  }
}
