// Counts what a TAP stream says, line by line, so that `npm test` can end with one honest line.
//
//   Y1  Only leaves are counted: a test point that closes a subtest repeats what was inside it.
//   Y2  A subtest that failed although nothing inside it did (a timeout, a broken plan, a process
//       that died) counts as one failure: no failure is ever lost by Y1.
//   Y3  What is skipped is neither passed nor failed, and keeps its reason.

/** One leaf that was skipped or failed. */
export interface Noted {
  /** File and subtests, outermost first, then the leaf's own name. */
  readonly path: readonly string[];
  /** The reason of a skip, or the diagnostics of a failure. */
  readonly text: string;
}

/** What one test file said. */
export interface FileTally {
  readonly file: string;
  readonly isOk: boolean;
  readonly passed: number;
  readonly failed: readonly Noted[];
  readonly skipped: readonly Noted[];
}

/** A subtest that has begun and not ended. */
interface Open {
  readonly indent: number;
  readonly name: string;
  failed: number;
}

const POINT = /^( *)(not ok|ok)\b(?: +\d+)?(?: +- )?(.*?)(?: # (.*))?$/;

/** Reads one TAP stream. Feed it lines; it returns a file's tally when the file has ended. */
export class Tally {
  #open: Open[] = [];
  #passed = 0;
  #failed: { path: string[]; text: string }[] = [];
  #skipped: Noted[] = [];
  /** The diagnostic block being read: its indent, and the failure it belongs to. */
  #block: { readonly indent: string; readonly of: { text: string } | undefined } | undefined;
  #lastFailure: { text: string } | undefined;

  /** Takes the line that ends a file, whatever was left open before it. */
  end(line: string): FileTally {
    this.#block = undefined;
    this.#open.splice(1);
    const file = this.line(line);
    if (file === undefined) throw new Error(`not the end of a file: ${line}`);
    return file;
  }

  /** Takes one line; returns the tally of the file that this line ends. */
  line(line: string): FileTally | undefined {
    if (this.#block !== undefined) {
      this.#readBlock(line, this.#block);
      return undefined;
    }
    const block = /^( +)---$/.exec(line);
    if (block !== null) {
      this.#block = { indent: block[1] ?? '', of: this.#lastFailure };
      return undefined;
    }
    const begin = /^( *)# Subtest: (.*)$/.exec(line);
    if (begin !== null) {
      const [, indent = '', name = ''] = begin;
      this.#open.push({ indent: indent.length, name, failed: this.#failed.length });
      return undefined;
    }
    const point = POINT.exec(line);
    return point === null ? undefined : this.#point(point);
  }

  #readBlock(
    line: string,
    block: { readonly indent: string; readonly of: { text: string } | undefined },
  ) {
    if (line === `${block.indent}...`) this.#block = undefined;
    else if (block.of !== undefined) block.of.text += `${line.slice(block.indent.length)}\n`;
  }

  #point([, indent = '', verdict, name = '', directive = '']: RegExpExecArray):
    FileTally | undefined {
    const closed = this.#open.at(-1)?.indent === indent.length ? this.#open.pop() : undefined;
    const path = [...this.#open.map((subtest) => subtest.name), name];
    const skip = /^SKIP\b ?(.*)$/i.exec(directive);
    this.#lastFailure = undefined;
    if (skip !== null) {
      this.#skipped.push({ path, text: skip[1]?.trim() || 'no reason given' });
    } else if (verdict === 'not ok') {
      // Y2: nothing inside the subtest accounts for it.
      if (closed === undefined || closed.failed === this.#failed.length) {
        this.#lastFailure = { text: '' };
        this.#failed.push(Object.assign(this.#lastFailure, { path, text: '' }));
      }
    } else if (closed === undefined) {
      this.#passed += 1;
    }
    return indent === '' ? this.#end(name, verdict === 'ok') : undefined;
  }

  #end(file: string, isOk: boolean): FileTally {
    const tally = {
      file,
      isOk,
      passed: this.#passed,
      failed: this.#failed,
      skipped: this.#skipped,
    };
    [this.#passed, this.#failed, this.#skipped, this.#open] = [0, [], [], []];
    return tally;
  }
}

/** The last line of a run: `12 passed, 0 failed`, with the skipped when there are any. */
export function verdict(passed: number, failed: number, skipped: number): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
