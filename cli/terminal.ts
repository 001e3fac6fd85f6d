// What the command knows of the terminal it writes to: whether a person reads, how wide it is, whether colours are
// wanted (NO_COLOR), and how to print foreign text without letting it steer the terminal.

export interface Terminal {
  /** A person reads stdout. */
  readonly tty: boolean;
  /** Columns of stdout; undefined when nobody reads, so nothing is cut. */
  readonly columns: number | undefined;
  readonly colour: boolean;
  /** A person reads stderr, where progress and errors go. */
  readonly errorTty: boolean;
  readonly errorColumns: number;
  out(text: string): void;
  /** Resolves once stdout takes more. */
  outBytes(bytes: Uint8Array): Promise<void>;
  error(text: string): void;
}

/** The terminal of this process. */
export function processTerminal(env: NodeJS.ProcessEnv = process.env): Terminal {
  const { stdout, stderr } = process;
  return {
    tty: stdout.isTTY === true,
    columns: stdout.isTTY ? stdout.columns : undefined,
    colour: stdout.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb',
    errorTty: stderr.isTTY === true,
    get errorColumns() {
      return stderr.columns ?? 80;
    },
    out: (text) => void stdout.write(text),
    outBytes: (bytes) => new Promise((resolve) => stdout.write(bytes, () => resolve())),
    error: (text) => void stderr.write(text),
  };
}

// CSI and OSC sequences whole, then every other control character except newline and tab (C0, DEL, C1).
const SEQUENCES =
  // eslint-disable-next-line no-control-regex
  /\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-Z\\^_]/g;
// eslint-disable-next-line no-control-regex
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** Text of an app, a peer or a file, made safe to print: no escape sequences, no control characters. */
export function withoutControls(text: string): string {
  return text.replace(SEQUENCES, '').replace(/\r\n/g, '\n').replace(CONTROLS, '');
}

/** One line of at most `width` columns; what does not fit ends in `…`. */
export function cutToWidth(text: string, width: number): string {
  const characters = [...text];
  if (characters.length <= width) return text;
  return width <= 1 ? '…'.slice(0, width) : `${characters.slice(0, width - 1).join('')}…`;
}

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;
export type Colour = keyof typeof CODES;

export function coloured(terminal: Pick<Terminal, 'colour'>, colour: Colour, text: string): string {
  return terminal.colour ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;
}
