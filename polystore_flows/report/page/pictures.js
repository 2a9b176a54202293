// Grey pictures of channels, tinted and put on each other; outlines of labels above them.

const OUTLINE_COLOURS = ["#ffd54a", "#4ae3ff", "#ff7ad9", "#b6ff6b"];

async function decoded(source) {
  const image = new Image();
  image.src = source.startsWith("data:") ? source : `data:image/webp;base64,${source}`;
  await image.decode();
  return image;
}

function painted(width, height, draw) {
  const canvas = element("canvas", { width, height });
  draw(canvas.getContext("2d"));
  return canvas;
}

// One channel alone is drawn in grey, several in their colours, added up.
async function composite(sources, colours) {
  const images = await Promise.all(sources.map(decoded));
  const { naturalWidth: width, naturalHeight: height } = images[0];
  return painted(width, height, (target) => {
    for (const [index, image] of images.entries()) {
      const layer = painted(width, height, (context) => {
        context.drawImage(image, 0, 0);
        context.globalCompositeOperation = "multiply";
        context.fillStyle = images.length > 1 ? colours[index] : "#ffffff";
        context.fillRect(0, 0, width, height);
      });
      target.globalCompositeOperation = "lighter";
      target.drawImage(layer, 0, 0);
    }
  });
}

async function outlined(canvas, source, colour) {
  const mask = await decoded(source);
  const { width, height } = canvas;
  const layer = painted(width, height, (context) => {
    context.drawImage(mask, 0, 0, width, height);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = colour;
    context.fillRect(0, 0, width, height);
  });
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "source-over";
  context.drawImage(layer, 0, 0);
}

class Pictures {
  constructor(data) {
    this.colours = data.plate.channels.map((channel) => `#${channel.color}`);
    this.channels = new Set(this.colours.keys());
    this.hiddenLabels = new Set();
  }

  get stored() {
    this.parsed ??= JSON.parse(byId("pictures").textContent);
    return this.parsed;
  }

  get chosen() {
    return [...this.channels].sort((a, b) => a - b);
  }

  async sheet() {
    const { sheets } = this.stored;
    const chosen = this.chosen;
    if (!chosen.length || !sheets.length) return null;
    const canvas = await composite(chosen.map((c) => sheets[c]), chosen.map((c) => this.colours[c]));
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(blob);
    return this.url;
  }

  fields(well) {
    return this.stored.fields[well] ?? [];
  }

  labels(well) {
    return [...new Set(this.fields(well).flatMap((field) => Object.keys(field.outlines)))];
  }

  async draw(well, field) {
    const chosen = this.chosen;
    const colours = chosen.map((c) => this.colours[c]);
    const canvas = chosen.length
      ? await composite(chosen.map((c) => field.channels[c]), colours)
      : await decoded(field.channels[0]).then((image) => painted(image.naturalWidth, image.naturalHeight, () => {}));
    for (const [index, label] of this.labels(well).entries()) {
      if (field.outlines[label] && !this.hiddenLabels.has(label)) {
        await outlined(canvas, field.outlines[label], OUTLINE_COLOURS[index % OUTLINE_COLOURS.length]);
      }
    }
    return canvas;
  }
}
