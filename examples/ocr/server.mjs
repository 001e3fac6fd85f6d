// Reads text in pictures, on the CPU: PP-OCRv4 through ONNX Runtime, behind plain HTTP.
//
//   POST /        { "image": "data:image/png;base64,…" }  (or "image_url")
//              →  { "lines": [{ "text", "confidence", "box": { x, y, width, height } }], "inference_ms" }
//   GET  /health  200 once the models are loaded
//
// The models are not in the image: the app file declares them as weights, and they lie in MODELS.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { findText } from './find-text.mjs';
import { BadPicture, decodeDataUri } from './picture.mjs';
import { alphabetOf, readText } from './read-text.mjs';

const models = process.env.MODELS ?? '/data/models';
const MOST_BYTES = 32 * 2 ** 20;

const startedMs = performance.now();
const options = { intraOpNumThreads: Number(process.env.THREADS ?? 1), logSeverityLevel: 3 };
const [detection, recognition, alphabet] = await Promise.all([
  ort.InferenceSession.create(join(models, 'detection.onnx'), options),
  ort.InferenceSession.create(join(models, 'recognition.onnx'), options),
  readFile(join(models, 'keys.txt'), 'utf8').then(alphabetOf),
]);
log({ event: 'models loaded', ms: Math.round(performance.now() - startedMs) });

async function ocr(picture) {
  const beganMs = performance.now();
  const boxes = await findText(detection, ort.Tensor, picture);
  const lines = [];
  for (const box of boxes) {
    const { text, confidence } = await readText(recognition, ort.Tensor, alphabet, picture, box);
    if (text !== '' && confidence >= 0.5)
      lines.push({ text, confidence: Math.round(confidence * 1000) / 1000, box });
  }
  return { lines, inference_ms: Math.round(performance.now() - beganMs) };
}

const server = createServer(async (request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };
  const id = request.headers['x-fal-request-id'];
  try {
    if (request.method === 'GET' && request.url === '/health') return answer(200, { ready: true });
    if (request.method !== 'POST' || request.url !== '/')
      return answer(404, { detail: 'POST / or GET /health' });
    const input = JSON.parse(await bodyOf(request));
    const result = await ocr(decodeDataUri(input.image ?? input.image_url));
    log({ event: 'read', id, lines: result.lines.length, ms: result.inference_ms });
    answer(200, result);
  } catch (error) {
    const callers = error instanceof BadPicture || error instanceof SyntaxError;
    log({ event: 'failed', id, problem: error.message });
    answer(callers ? 422 : 500, {
      detail: [{ loc: ['body', 'image'], msg: error.message, type: 'value_error' }],
    });
  }
});

async function bodyOf(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MOST_BYTES) throw new BadPicture(`the input is over ${MOST_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function log(fields) {
  console.log(JSON.stringify(fields));
}

const port = Number(process.env.PORT ?? 8080);
server.listen(port, () => log({ event: 'listening', port: server.address().port }));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
