// Where there is text: the PP-OCRv4 detection model gives a probability for every pixel, and this turns it into boxes
// (differentiable binarization: threshold, connected parts, mean probability, grow by area over perimeter).
import { toPlanes } from './picture.mjs';

const THRESHOLD = 0.3;
const BOX_THRESHOLD = 0.6;
/** The model learns shrunken text; boxes are grown back by this. */
const UNCLIP = 1.6;
const SMALLEST = 3;
const LONGEST_SIDE = 1280;

// ImageNet's mean and deviation, as the model was trained with.
const MEAN = [0.485, 0.456, 0.406];
const DEVIATION = [0.229, 0.224, 0.225];
const scale = DEVIATION.map((deviation) => 1 / 255 / deviation);
const shift = MEAN.map((mean, c) => -mean / DEVIATION[c]);

/** The model takes sides that are multiples of 32. */
export function detectionSize({ width, height }) {
  const ratio = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  const side = (length) => Math.max(32, Math.round((length * ratio) / 32) * 32);
  return { width: side(width), height: side(height) };
}

/** Boxes of text lines in the picture's own pixels, in reading order. */
export async function findText(session, Tensor, picture) {
  const size = detectionSize(picture);
  const whole = { x: 0, y: 0, width: picture.width, height: picture.height };
  const input = new Tensor('float32', toPlanes(picture, whole, { ...size, scale, shift }), [
    1,
    3,
    size.height,
    size.width,
  ]);
  const { [session.outputNames[0]]: output } = await session.run({
    [session.inputNames[0]]: input,
  });
  const boxes = boxesOf(output.data, size.width, size.height);
  const stretchX = picture.width / size.width;
  const stretchY = picture.height / size.height;
  const inPicture = boxes.map(({ x, y, width, height }) => {
    const left = Math.max(0, Math.floor(x * stretchX));
    const top = Math.max(0, Math.floor(y * stretchY));
    return {
      x: left,
      y: top,
      width: Math.min(picture.width, Math.ceil((x + width) * stretchX)) - left,
      height: Math.min(picture.height, Math.ceil((y + height) * stretchY)) - top,
    };
  });
  return inReadingOrder(inPicture);
}

/** Connected parts of a probability map as boxes. */
export function boxesOf(map, width, height) {
  const seen = new Uint8Array(width * height);
  const boxes = [];
  for (let start = 0; start < map.length; start += 1) {
    if (seen[start] || map[start] <= THRESHOLD) continue;
    const part = flood(map, seen, width, height, start);
    const box = {
      x: part.left,
      y: part.top,
      width: part.right - part.left + 1,
      height: part.bottom - part.top + 1,
    };
    if (Math.min(box.width, box.height) < SMALLEST || part.sum / part.pixels < BOX_THRESHOLD)
      continue;
    const grow = (box.width * box.height * UNCLIP) / (2 * (box.width + box.height));
    boxes.push({
      x: box.x - grow,
      y: box.y - grow,
      width: box.width + 2 * grow,
      height: box.height + 2 * grow,
    });
  }
  return boxes;
}

function flood(map, seen, width, height, start) {
  const part = { left: width, right: 0, top: height, bottom: 0, sum: 0, pixels: 0 };
  const open = [start];
  seen[start] = 1;
  while (open.length > 0) {
    const at = open.pop();
    const x = at % width;
    const y = (at - x) / width;
    part.left = Math.min(part.left, x);
    part.right = Math.max(part.right, x);
    part.top = Math.min(part.top, y);
    part.bottom = Math.max(part.bottom, y);
    part.sum += map[at];
    part.pixels += 1;
    for (let dy = -1; dy <= 1; dy += 1)
      for (let dx = -1; dx <= 1; dx += 1) {
        const next = at + dy * width + dx;
        if (x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height) continue;
        if (seen[next] || map[next] <= THRESHOLD) continue;
        seen[next] = 1;
        open.push(next);
      }
  }
  return part;
}

/** Top to bottom; boxes whose middles lie within half a line of each other are one row, left to right. */
export function inReadingOrder(boxes) {
  const rows = [];
  for (const box of boxes.toSorted((a, b) => a.y + a.height / 2 - (b.y + b.height / 2))) {
    const middle = box.y + box.height / 2;
    const row = rows.at(-1);
    if (row && Math.abs(row.middle - middle) < Math.min(row.height, box.height) / 2)
      row.boxes.push(box);
    else rows.push({ middle, height: box.height, boxes: [box] });
  }
  return rows.flatMap((row) => row.boxes.toSorted((a, b) => a.x - b.x));
}
