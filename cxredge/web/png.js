// Reads the grey values of a PNG at its own bit depth (W3C PNG, third edition). A browser's own reader keeps 8 bits.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const MOST_PIXELS = 100e6;

// Returns {width, height, pixels: Float32Array} of a grey PNG of 8 or 16 bits, not interlaced.
async function readPng(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  if (SIGNATURE.some((value, i) => bytes[i] !== value)) throw new Error("This is not a PNG file.");
  const width = view.getUint32(16), height = view.getUint32(20);
  const [depth, colour, , , interlaced] = bytes.subarray(24, 29);
  if (colour !== 0 || (depth !== 8 && depth !== 16)) throw new Error("Only grey PNGs of 8 or 16 bits are read here.");
  if (interlaced) throw new Error("Interlaced PNGs are not read here.");
  if (Math.min(width, height) < 32 || width * height > MOST_PIXELS) {
    throw new Error(`${width} x ${height} pixels is not the size of a radiograph.`);
  }
  const rows = await inflate(imageData(bytes, view));
  const sample = depth / 8, stride = width * sample;
  if (rows.length < height * (stride + 1)) throw new Error("The PNG is damaged.");
  unfilter(rows, height, stride, sample);
  const pixels = new Float32Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0, from = y * (stride + 1) + 1; x < width; x++, from += sample) {
      pixels[at++] = sample === 2 ? rows[from] * 256 + rows[from + 1] : rows[from];
    }
  }
  return { width, height, pixels };
}

// The contents of the IDAT chunks.
function imageData(bytes, view) {
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    if (String.fromCharCode(...bytes.subarray(at + 4, at + 8)) === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  return new Blob(parts);
}

async function inflate(blob) {
  const stream = blob.stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Undoes the filter of each row in place (section 9); a row is its filter's number and `stride` bytes.
function unfilter(rows, height, stride, sample) {
  for (let y = 0; y < height; y++) {
    const start = y * (stride + 1) + 1, filter = rows[start - 1];
    for (let i = 0; i < stride; i++) {
      const left = i >= sample ? rows[start + i - sample] : 0;
      const up = y ? rows[start + i - stride - 1] : 0;
      const corner = y && i >= sample ? rows[start + i - stride - 1 - sample] : 0;
      rows[start + i] +=
        filter === 1 ? left : filter === 2 ? up : filter === 3 ? (left + up) >> 1 : filter === 4 ? paeth(left, up, corner) : 0;
    }
  }
}

function paeth(left, up, corner) {
  const base = left + up - corner;
  const a = Math.abs(base - left), b = Math.abs(base - up), c = Math.abs(base - corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
