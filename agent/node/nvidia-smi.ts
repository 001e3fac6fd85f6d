// Reads what node-nvidia-smi makes of `nvidia-smi -q -x`: xml2js objects whose shape follows the number of elements
// (one GPU is an object, several are an array, an empty element is '' or whitespace text). Pure; runs in the child.
// P3: 'N/A', 'Requested functionality has been deprecated', 'Unknown Error' and the like become absent.
import type { Gpu, GpusSeen } from './gpu-probe.ts';

export type SmiAnswer = GpusSeen | { kind: 'unusable'; reason: string };

/** What a parsed log says; `unusable` when it is not one. */
export function readSmiLog(parsed: unknown): SmiAnswer {
  const log = field(parsed, 'nvidia_smi_log');
  if (log === undefined)
    return { kind: 'unusable', reason: 'nvidia-smi printed XML that is no nvidia_smi_log' };
  const entries = list(field(log, 'gpu'));
  const attached = numberOf(text(log, 'attached_gpus'));
  if (entries.length === 0 && attached !== undefined && attached > 0)
    return { kind: 'unusable', reason: `nvidia-smi counts ${attached} GPUs and describes none` };
  const gpus: Gpu[] = [];
  const unreadable: string[] = [];
  for (const [index, entry] of entries.entries()) {
    const seen = readGpu(entry, index);
    if (seen) gpus.push(seen);
    else unreadable.push(text(field(entry, '$'), 'id') ?? `GPU ${index}`);
  }
  const twice = gpus.find((one, at) => gpus.findIndex(({ uuid }) => uuid === one.uuid) !== at);
  if (twice) return { kind: 'unusable', reason: `nvidia-smi describes ${twice.uuid} twice` };
  return {
    kind: 'gpus',
    ...known({
      driverVersion: text(log, 'driver_version'),
      cudaVersion: text(log, 'cuda_version'),
    }),
    gpus,
    unreadable,
  };
}

function readGpu(entry: unknown, index: number): Gpu | undefined {
  const uuid = text(entry, 'uuid');
  if (uuid === undefined) return undefined;
  const memory = field(entry, 'fb_memory_usage');
  const use = field(entry, 'utilization');
  // Drivers before 530 say power_readings; from 550 on there are an average and an instant draw.
  const power = field(entry, 'gpu_power_readings') ?? field(entry, 'power_readings');
  const watts = ['instant_power_draw', 'average_power_draw', 'power_draw'].map((name) =>
    numberOf(text(power, name), 'W'),
  );
  const volatile = field(field(entry, 'ecc_errors'), 'volatile');
  return {
    uuid,
    index,
    name: text(entry, 'product_name') ?? 'unknown',
    migMode: text(field(entry, 'mig_mode'), 'current_mig') === 'Enabled',
    migDevices: list(field(field(entry, 'mig_devices'), 'mig_device')).flatMap(readMigDevice),
    problems: problemsOf(entry),
    ...known({
      minor: count(text(entry, 'minor_number')),
      architecture: text(entry, 'product_architecture'),
      pciBusId: text(field(entry, 'pci'), 'pci_bus_id') ?? text(field(entry, '$'), 'id'),
      memoryBytes: sizeOf(text(memory, 'total')),
      memoryUsedBytes: sizeOf(text(memory, 'used')),
      utilizationPercent: numberOf(text(use, 'gpu_util'), '%'),
      memoryUtilizationPercent: numberOf(text(use, 'memory_util'), '%'),
      temperatureCelsius: numberOf(text(field(entry, 'temperature'), 'gpu_temp'), 'C'),
      powerWatts: watts.find((value) => value !== undefined),
      computeMode: text(entry, 'compute_mode'),
      // Drivers before 440 count by kind of error and memory, with a total.
      eccCorrected:
        sumOf(volatile, /_correctable$/) ?? count(text(field(volatile, 'single_bit'), 'total')),
      eccUncorrected:
        sumOf(volatile, /_uncorrectable/) ?? count(text(field(volatile, 'double_bit'), 'total')),
    }),
  };
}

function readMigDevice(entry: unknown): Gpu['migDevices'] {
  const index = count(text(entry, 'index'));
  if (index === undefined) return [];
  const rest = known({
    gpuInstanceId: count(text(entry, 'gpu_instance_id')),
    computeInstanceId: count(text(entry, 'compute_instance_id')),
    memoryBytes: sizeOf(text(field(entry, 'fb_memory_usage'), 'total')),
  });
  return [{ index, ...rest }];
}

/** Only what nvidia-smi itself calls a reason to stop using the GPU. */
function problemsOf(entry: unknown): string[] {
  const problems: string[] = [];
  const action = text(entry, 'gpu_recovery_action');
  if (action !== undefined && action !== 'None') problems.push(`the driver asks for: ${action}`);
  if (text(field(entry, 'gpu_reset_status'), 'reset_required') === 'Yes')
    problems.push('a reset is required');
  const rows = field(entry, 'remapped_rows');
  if (text(rows, 'remapped_row_failure') === 'Yes')
    problems.push('its memory has no spare rows left');
  if (text(entry, 'compute_mode') === 'Prohibited') problems.push('its compute mode is Prohibited');
  const lost = ['product_name', 'performance_state', 'fan_speed'].map((name) =>
    rawText(entry, name),
  );
  if (lost.some((value) => /GPU (is lost|requires reset)/i.test(value)))
    problems.push('the GPU is lost');
  return problems;
}

/** A member of a parsed element. */
function field(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return Object.hasOwn(value, name) ? Reflect.get(value, name) : undefined;
}

/** xml2js makes an array only of elements that repeat; what has text alone (`None`) holds no elements. */
function list(value: unknown): unknown[] {
  if (Array.isArray(value))
    return value.filter((entry) => typeof entry === 'object' && entry !== null);
  return typeof value === 'object' && value !== null ? [value] : [];
}

function rawText(value: unknown, name: string): string {
  const found = field(value, name);
  return typeof found === 'string' ? found.trim() : '';
}

const UNSAID =
  /^(\[?N\/A\]?|\[?Not (Supported|Found|Available)\]?|\[?Unknown Error\]?|\[?GPU is lost\]?|ERR!|Requested functionality .*)$/i;

/** Text of a member; undefined when nvidia-smi says nothing by it (P3). */
function text(value: unknown, name: string): string | undefined {
  const found = rawText(value, name);
  return found === '' || UNSAID.test(found) ? undefined : found;
}

function numberOf(value: string | undefined, unit = ''): number | undefined {
  const match = /^(-?[0-9]+(?:\.[0-9]+)?)\s*(\S*)$/.exec(value ?? '');
  return match && match[2] === unit ? Number(match[1]) : undefined;
}

function count(value: string | undefined): number | undefined {
  const found = numberOf(value);
  return found !== undefined && Number.isSafeInteger(found) && found >= 0 ? found : undefined;
}

const UNITS: Record<string, number> = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, MB: 2 ** 20 };

/** `81559 MiB` in bytes. Drivers before 470 print MB and mean MiB. */
function sizeOf(value: string | undefined): number | undefined {
  const match = /^([0-9]+)\s*(KiB|MiB|GiB|MB)$/.exec(value ?? '');
  return match ? Number(match[1]) * (UNITS[match[2] ?? ''] ?? Number.NaN) : undefined;
}

/** Sum of the counters whose names match; undefined when none of them has a number. */
function sumOf(element: unknown, names: RegExp): number | undefined {
  if (typeof element !== 'object' || element === null) return undefined;
  const counts = Object.keys(element)
    .filter((name) => names.test(name))
    .map((name) => count(text(element, name)))
    .filter((value) => value !== undefined);
  return counts.length === 0 ? undefined : counts.reduce((sum, value) => sum + value, 0);
}

/** Drops what is undefined, so that absent stays absent. */
function known<T extends Record<string, unknown>>(
  values: T,
): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}
