// One well: its fields, what was measured in it, where it comes from.

class WellPanel {
  constructor(data, pictures) {
    this.data = data;
    this.pictures = pictures;
    this.turn = 0;
  }

  async show(well, column) {
    const turn = ++this.turn;
    this.well = well;
    byId("well-title").textContent = `Well ${well.path}`;
    byId("well-text").replaceChildren(...this.text(well, column));
    const labels = this.pictures.labels(well.path);
    byId("outlines").replaceChildren(...labels.map((label, index) => this.labelBox(label, index, column)));
    const fields = this.pictures.fields(well.path);
    byId("well-controls").hidden = !fields.length;
    const figures = await Promise.all(fields.map((field) => this.figure(well, field)));
    if (turn !== this.turn) return; // another well was chosen meanwhile
    byId("fields").classList.toggle("one", figures.length === 1);
    byId("fields").replaceChildren(...figures);
  }

  labelBox(label, index, column) {
    const { hiddenLabels } = this.pictures;
    return checkbox(label, !hiddenLabels.has(label), OUTLINE_COLOURS[index % OUTLINE_COLOURS.length], (wanted) => {
      if (wanted) hiddenLabels.delete(label);
      else hiddenLabels.add(label);
      this.show(this.well, column);
    });
  }

  async figure(well, field) {
    const canvas = await this.pictures.draw(well.path, field);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Well ${well.path}, field ${field.name}`);
    return element("figure", {}, canvas, element("figcaption", {}, `Field ${field.name}`));
  }

  text(well, column) {
    const { data } = this;
    const made = well.problems.map((problem) => element("p", { class: "warning" }, problem));
    if (well.state === "missing") made.push(element("p", { class: "warning" }, "A table names this well, but the plate has no images of it."));
    const hidden = well.fields - this.pictures.fields(well.path).length;
    if (well.state === "ok" && hidden > 0) made.push(element("p", { class: "quiet small" }, `The first ${well.fields - hidden} of ${well.fields} fields.`));
    const here = data.columns.filter((other) => other.values[well.index] !== null);
    const groups = new Set(here.filter((other) => !other.statistic).map((other) => other.group));
    for (const group of groups) {
      const entries = here.filter((other) => other.group === group && !other.statistic);
      made.push(element("h3", {}, group), pairs(entries.map((other) => [other.title, show(other.values[well.index]), other === column])));
    }
    made.push(...this.intensities(well));
    if (well.origin.length) made.push(element("h3", {}, "Provenance"), pairs(well.origin));
    return made;
  }

  intensities(well) {
    const measured = this.data.columns.filter((other) => other.statistic && other.values[well.index] !== null);
    if (!measured.length) return [];
    const names = [...new Set(measured.map((other) => other.statistic))];
    const channels = new Map();
    for (const other of measured) {
      if (!channels.has(other.group)) channels.set(other.group, []);
      channels.get(other.group).push(other.values[well.index]);
    }
    const table = numberTable("Intensity", ["statistic", ...channels.keys()], names.map((name, i) => [name, ...[...channels.values()].map((values) => values[i] ?? null)]));
    return [element("h3", {}, "Intensity"), table];
  }
}
