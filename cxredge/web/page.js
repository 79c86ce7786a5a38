// The page: a PNG that is dropped is read, segmented, cleaned and drawn. Nothing leaves the browser.

const element = (id) => document.getElementById(id);
const embedded = (id) => Uint8Array.from(atob(element(id).textContent), (letter) => letter.charCodeAt(0));
const say = (text, state) => { element("status").textContent = text; document.body.dataset.state = state; };
let session, runtime, latest;

async function start() {
  const source = URL.createObjectURL(new Blob([embedded("runtime")], { type: "text/javascript" }));
  runtime = await import(source);
  runtime.env.wasm.numThreads = 1; // more need a server that isolates the page
  runtime.env.wasm.wasmBinary = embedded("wasm").buffer;
  session = await runtime.InferenceSession.create(embedded("model"), { executionProviders: ["wasm"] });
  say("Drop a grey PNG of a frontal chest radiograph here, or choose one.", "ready");
}

async function open(file) {
  if (!session || !file) return;
  latest = file;
  try {
    say(`${file.name}: working …`, "working");
    await segment(file.name, await readPng(await file.arrayBuffer()));
  } catch (error) {
    say(`${file.name}: ${error.message ?? error}`, "failed");
  }
}

async function segment(name, { width, height, pixels }) {
  const values = element("inverted").checked ? pixels.map((value) => -value) : pixels;
  const started = performance.now();
  const { mask, logits } = await session.run({ image: new runtime.Tensor("float32", values, [height, width]) });
  if (Number.isNaN(logits.data[0])) throw new Error("all pixels are equal, there is nothing to see.");
  const lungs = clean(mask.data, width, height);
  const spent = performance.now() - started;
  window.segmentation = { width, height, mask: lungs };
  draw(values, lungs, width, height);
  const share = lungs.reduce((sum, value) => sum + value, 0) / lungs.length;
  say(`${name}: ${width} x ${height}, lungs ${(100 * share).toFixed(1)} % of the image, ${spent.toFixed(0)} ms`, "done");
}

// The radiograph in grey, the lungs tinted and outlined.
function draw(values, mask, width, height) {
  const canvas = element("picture");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d"), picture = context.createImageData(width, height);
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const reach = Math.max(1, Math.round(Math.max(width, height) / 500));
  for (let i = 0; i < values.length; i++) {
    const grey = (255 * (values[i] - low)) / (high - low), x = i % width;
    const edge = mask[i] && [-reach, reach].some((step) => !mask[i + step * width] || !mask[i + step] || x + step < 0 || x + step >= width);
    picture.data.set(edge ? [64, 224, 160, 255] : mask[i] ? [0.8 * grey, 0.85 * grey + 24, grey, 255] : [grey, grey, grey, 255], 4 * i);
  }
  context.putImageData(picture, 0, 0);
}

document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); open(event.dataTransfer.files[0]); });
element("file").addEventListener("change", (event) => open(event.target.files[0]));
element("inverted").addEventListener("change", () => open(latest));
start().catch((error) => say(`The model cannot be started: ${error.message ?? error}`, "failed"));
