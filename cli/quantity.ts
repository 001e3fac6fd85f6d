// Sizes, durations and moments as people read them. Machine-readable output never goes through here.

const SIZES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** `40 MiB`, `1.5 GiB`: at most one digit behind the point, and only below 10. */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (Math.round(value) >= 1024 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && value < 10 && Math.round(value * 10) % 10 !== 0 ? 1 : 0;
  return `${value.toFixed(digits)} ${SIZES[unit] ?? 'TiB'}`;
}

/** `40/120 MiB`; without a total just what is done. */
export function progressText(doneBytes: number, totalBytes: number | undefined): string {
  if (totalBytes === undefined || totalBytes <= 0) return sizeText(doneBytes);
  const total = sizeText(totalBytes);
  const done = sizeText(Math.min(doneBytes, totalBytes));
  const unit = total.slice(total.indexOf(' '));
  return done.endsWith(unit) ? `${done.slice(0, -unit.length)}/${total}` : `${done} of ${total}`;
}

/** `850 ms`, `4.2 s`, `3m 05s`, `2h 10m`, `5d 3h`. */
export function durationText(ms: number): string {
  if (ms < 0) return '0 ms';
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const pair = (big: number, small: number, bigUnit: string, smallUnit: string): string =>
    `${big}${bigUnit} ${String(small).padStart(2, '0')}${smallUnit}`;
  if (seconds < 3_600) return pair(Math.floor(seconds / 60), seconds % 60, 'm', 's');
  if (seconds < 86_400)
    return pair(Math.floor(seconds / 3_600), Math.floor((seconds % 3_600) / 60), 'h', 'm');
  return `${Math.floor(seconds / 86_400)}d ${Math.floor((seconds % 86_400) / 3_600)}h`;
}

/** Wall time of a record as ISO 8601 in UTC, to the second: the same text on every machine. */
export function momentText(wallMs: number): string {
  return `${new Date(wallMs).toISOString().slice(0, 19)}Z`;
}
