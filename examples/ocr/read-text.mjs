// What a line of text says: the PP-OCRv4 recognition model gives, for each step along the line, a probability for
// every character of its alphabet; the best path without repeats and blanks is the text (CTC).
import { toPlanes } from './picture.mjs';

const HEIGHT = 48;
const LEAST_WIDTH = 320;
const MOST_WIDTH = 3200;
const scale = [2 / 255, 2 / 255, 2 / 255];
const shift = [-1, -1, -1];

/** The model's alphabet: blank, the lines of the keys file, space. */
export function alphabetOf(keysFile) {
  return ['', ...keysFile.replace(/\r?\n$/, '').split(/\r?\n/), ' '];
}

/** `{ text, confidence }` of one box. */
export async function readText(session, Tensor, alphabet, picture, box) {
  const usedWidth = Math.min(MOST_WIDTH, Math.max(8, Math.ceil((HEIGHT * box.width) / box.height)));
  const width = Math.max(LEAST_WIDTH, usedWidth);
  const planes = toPlanes(picture, box, { width, height: HEIGHT, usedWidth, scale, shift });
  const input = new Tensor('float32', planes, [1, 3, HEIGHT, width]);
  const { [session.outputNames[0]]: output } = await session.run({
    [session.inputNames[0]]: input,
  });
  return bestPath(output.data, output.dims[2], alphabet);
}

/** Greedy CTC decoding of `steps × classes` probabilities. */
export function bestPath(probabilities, classes, alphabet) {
  let text = '';
  let sum = 0;
  let letters = 0;
  let last = 0;
  for (let step = 0; step < probabilities.length; step += classes) {
    let best = 0;
    for (let c = 1; c < classes; c += 1)
      if (probabilities[step + c] > probabilities[step + best]) best = c;
    if (best !== 0 && best !== last) {
      text += alphabet[best] ?? '';
      sum += probabilities[step + best];
      letters += 1;
    }
    last = best;
  }
  return { text: text.trim(), confidence: letters === 0 ? 0 : sum / letters };
}
