// What is left to the caller of the model: the two largest 4-connected components of the mask, without holes.

const LUNGS = 2;

// Cleans a mask of 0 and 1 in place.
function clean(mask, width, height) {
  const lungs = components(mask, width, height, 1).sort((a, b) => b.length - a.length);
  for (const component of lungs.slice(LUNGS)) for (const pixel of component) mask[pixel] = 0;
  const onBorder = (pixel) => {
    const x = pixel % width;
    return x === 0 || x === width - 1 || pixel < width || pixel >= width * (height - 1);
  };
  for (const hole of components(mask, width, height, 0)) {
    if (!hole.some(onBorder)) for (const pixel of hole) mask[pixel] = 1;
  }
  return mask;
}

// The 4-connected components of the pixels that have `value`, each a list of their positions.
function components(mask, width, height, value) {
  const seen = new Uint8Array(mask.length), found = [];
  for (let first = 0; first < mask.length; first++) {
    if (seen[first] || mask[first] !== value) continue;
    const component = [first];
    seen[first] = 1;
    for (let next = 0; next < component.length; next++) {
      const pixel = component[next], x = pixel % width;
      const visit = (other) => {
        if (!seen[other] && mask[other] === value) { seen[other] = 1; component.push(other); }
      };
      if (x > 0) visit(pixel - 1);
      if (x < width - 1) visit(pixel + 1);
      if (pixel >= width) visit(pixel - width);
      if (pixel < width * (height - 1)) visit(pixel + width);
    }
    found.push(component);
  }
  return found;
}
