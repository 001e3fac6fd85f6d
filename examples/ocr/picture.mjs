// A picture as this app handles it: { width, height, rgb } with three bytes a pixel, rows from the top.
import jpeg from 'jpeg-js';
import { PNG } from 'pngjs';

const MOST_PIXELS = 40e6;

/** What the caller sent is no picture that this app can read. */
export class BadPicture extends Error {}

/** Decodes a `data:image/png;base64,…` or `data:image/jpeg;base64,…` URI. */
export function decodeDataUri(uri) {
  const match = /^data:image\/(png|jpe?g);base64,/.exec(
    typeof uri === 'string' ? uri.slice(0, 64) : '',
  );
  if (!match)
    throw new BadPicture(
      'expected a data URI: data:image/png;base64,… or data:image/jpeg;base64,…',
    );
  const bytes = Buffer.from(uri.slice(match[0].length), 'base64');
  try {
    return match[1] === 'png' ? decodePng(bytes) : decodeJpeg(bytes);
  } catch (error) {
    throw new BadPicture(`the picture cannot be decoded: ${error.message}`);
  }
}

function decodePng(bytes) {
  // Width and height stand at fixed places; looked at first, so that a small file cannot ask for a huge picture.
  if (bytes.length < 24 || bytes.readUInt32BE(16) * bytes.readUInt32BE(20) > MOST_PIXELS)
    throw new Error('it is no PNG or has too many pixels');
  const { width, height, data } = PNG.sync.read(bytes);
  return { width, height, rgb: onWhite(data, width * height) };
}

function decodeJpeg(bytes) {
  const options = {
    useTArray: true,
    maxResolutionInMP: MOST_PIXELS / 1e6,
    maxMemoryUsageInMB: 512,
  };
  const { width, height, data } = jpeg.decode(bytes, options);
  return { width, height, rgb: onWhite(data, width * height) };
}

/** RGBA to RGB; what is transparent becomes paper. */
function onWhite(rgba, pixels) {
  const rgb = new Uint8Array(pixels * 3);
  for (let at = 0; at < pixels; at += 1) {
    const alpha = rgba[at * 4 + 3];
    for (let c = 0; c < 3; c += 1)
      rgb[at * 3 + c] = (rgba[at * 4 + c] * alpha + 255 * (255 - alpha)) / 255;
  }
  return rgb;
}

/**
 * A part of a picture, scaled to `width` × `height` (bilinear) into planes of floats as the models want them:
 * `scale[c] * value + shift[c]`, blue first. Columns from `usedWidth` on stay 0.
 */
export function toPlanes(picture, part, { width, height, usedWidth = width, scale, shift }) {
  const planes = new Float32Array(3 * width * height);
  const stepX = part.width / usedWidth;
  const stepY = part.height / height;
  for (let y = 0; y < height; y += 1) {
    const [y0, y1, fy] = between(part.y + (y + 0.5) * stepY - 0.5, picture.height);
    for (let x = 0; x < usedWidth; x += 1) {
      const [x0, x1, fx] = between(part.x + (x + 0.5) * stepX - 0.5, picture.width);
      for (let c = 0; c < 3; c += 1) {
        const value = (column, row) => picture.rgb[(row * picture.width + column) * 3 + 2 - c];
        const top = value(x0, y0) * (1 - fx) + value(x1, y0) * fx;
        const bottom = value(x0, y1) * (1 - fx) + value(x1, y1) * fx;
        planes[(c * height + y) * width + x] = (top * (1 - fy) + bottom * fy) * scale[c] + shift[c];
      }
    }
  }
  return planes;
}

/** The two neighbours of a position, kept inside the picture, and how far it is from the first to the second. */
function between(position, size) {
  const inside = Math.min(Math.max(position, 0), size - 1);
  const low = Math.floor(inside);
  return [low, Math.min(low + 1, size - 1), inside - low];
}
