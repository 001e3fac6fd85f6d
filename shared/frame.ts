// A frame: one message as msgpack, `[name, body]`. Before msgpackr sees a frame, a scan over the raw bytes bounds its
// depth and refuses every extension type, because msgpackr decodes record definitions and cyclic references that
// the sender chose (survival T11). Sizes are bounded by ws and again here.
import { Packr, Unpackr } from 'msgpackr';
import { Failure } from './failure.ts';
import { limits } from './limits.ts';

const packr = new Packr({ useRecords: false, encodeUndefinedAsNil: true, variableMapSize: true });
const unpackr = new Unpackr({ useRecords: false, int64AsType: 'number', mapsAsObjects: true });

export function encodeFrame(name: string, body: unknown): Uint8Array {
  const bytes = packr.pack([name, body]);
  if (bytes.byteLength > limits.frameBytes)
    throw new Failure(
      'FRAME_TOO_LARGE',
      `message ${name} has ${bytes.byteLength} bytes, limit ${limits.frameBytes}`,
    );
  return bytes;
}

/** @throws Failure FRAME_INVALID, FRAME_TOO_LARGE; the message says what, never what the bytes were */
export function decodeFrame(
  bytes: Uint8Array,
  maxBytes: number = limits.frameBytes,
): [string, unknown] {
  if (bytes.byteLength > maxBytes)
    throw new Failure(
      'FRAME_TOO_LARGE',
      `a frame has ${bytes.byteLength} bytes, limit ${maxBytes}`,
    );
  scan(bytes);
  let value: unknown;
  try {
    value = unpackr.unpack(bytes);
  } catch (cause) {
    throw new Failure('FRAME_INVALID', 'a frame is not msgpack', { cause });
  }
  if (!Array.isArray(value) || value.length !== 2 || typeof value[0] !== 'string')
    throw new Failure('FRAME_INVALID', 'a frame is not [name, body]');
  return [value[0], value[1]];
}

/** Walks the msgpack structure (msgpack specification, "Formats") without building anything. */
function scan(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // Values still owed by each open array or map; its length is the depth.
  const owed: number[] = [1];
  let at = 0;
  while (owed.length > 0) {
    const top = owed.length - 1;
    if (owed[top] === 0) {
      owed.pop();
      continue;
    }
    owed[top] = (owed[top] ?? 0) - 1;
    const head = headAt(view, at);
    at = head.next;
    if (at > bytes.byteLength)
      throw new Failure('FRAME_INVALID', 'a frame ends in the middle of a value');
    if (head.children > 0) {
      if (owed.length >= limits.frameDepth)
        throw new Failure('FRAME_INVALID', `a frame is nested deeper than ${limits.frameDepth}`);
      // Each child takes a byte at least: a larger count lies about what follows.
      if (head.children > bytes.byteLength - at)
        throw new Failure('FRAME_INVALID', 'a frame declares more than it has');
      owed.push(head.children);
    }
  }
  if (at !== bytes.byteLength)
    throw new Failure('FRAME_INVALID', 'a frame has bytes after its value');
}

const FIXED_SIZES: Record<number, number> = {
  0xca: 4,
  0xcb: 8,
  0xcc: 1,
  0xcd: 2,
  0xce: 4,
  0xcf: 8,
  0xd0: 1,
  0xd1: 2,
  0xd2: 4,
  0xd3: 8,
};

function headAt(view: DataView, at: number): { next: number; children: number } {
  if (at >= view.byteLength) throw new Failure('FRAME_INVALID', 'a frame ends too early');
  const type = view.getUint8(at);
  const leaf = (next: number): { next: number; children: number } => ({ next, children: 0 });
  if (type <= 0x7f || type >= 0xe0 || type === 0xc0 || type === 0xc2 || type === 0xc3)
    return leaf(at + 1);
  if (type <= 0x8f) return { next: at + 1, children: 2 * (type & 0x0f) };
  if (type <= 0x9f) return { next: at + 1, children: type & 0x0f };
  if (type <= 0xbf) return leaf(at + 1 + (type & 0x1f));
  const fixed = FIXED_SIZES[type];
  if (fixed !== undefined) return leaf(at + 1 + fixed);
  // Sized values: bin 8/16/32, str 8/16/32, array 16/32, map 16/32.
  const read = (width: 1 | 2 | 4): number => {
    if (at + 1 + width > view.byteLength)
      throw new Failure('FRAME_INVALID', 'a frame ends too early');
    if (width === 1) return view.getUint8(at + 1);
    return width === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1);
  };
  if (type === 0xc4 || type === 0xd9) return leaf(at + 2 + read(1));
  if (type === 0xc5 || type === 0xda) return leaf(at + 3 + read(2));
  if (type === 0xc6 || type === 0xdb) return leaf(at + 5 + read(4));
  if (type === 0xdc) return { next: at + 3, children: read(2) };
  if (type === 0xdd) return { next: at + 5, children: read(4) };
  if (type === 0xde) return { next: at + 3, children: 2 * read(2) };
  if (type === 0xdf) return { next: at + 5, children: 2 * read(4) };
  throw new Failure('FRAME_INVALID', 'a frame uses an extension type');
}
