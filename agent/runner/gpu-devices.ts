// The GPUs of one runner as the bundle needs them: CDI where the machine has it, plain device nodes otherwise, with
// the device numbers of this machine.
import { stat } from 'node:fs/promises';
import { Failure } from '../../shared/failure.ts';
import type { BundleDevice, BundleGpus } from './bundle.ts';
import { mergeCdi, plainGpuEdits, readCdi } from './cdi.ts';
import type { GrantedGpu } from './driver.ts';

/** @throws Failure DRIVER_FAILED when the device of a granted GPU is not there */
export async function bundleGpus(
  gpus: readonly GrantedGpu[],
  cdiFolders: readonly string[],
): Promise<BundleGpus | undefined> {
  if (gpus.length === 0) return undefined;
  const cdi = mergeCdi(await readCdi(cdiFolders), gpus);
  const edits = cdi ?? plainGpuEdits(gpus);
  const devices: BundleDevice[] = [];
  for (const { path, hostPath, permissions } of edits.devices) {
    const stats = await stat(hostPath).catch(() => undefined);
    if (stats !== undefined && stats.isCharacterDevice()) {
      devices.push({ path, permissions, ...deviceNumbers(stats.rdev) });
    } else if (/nvidia\d+$/.test(hostPath)) {
      throw new Failure('DRIVER_FAILED', `${hostPath} is not a device on this machine`);
    }
  }
  return { ...edits, devices, uuids: gpus.map((gpu) => gpu.uuid) };
}

/** Linux packs a device number as 12 bits of major round 20 bits of minor (makedev(3)). */
export function deviceNumbers(rdev: number): { major: number; minor: number } {
  const low = rdev % 2 ** 32;
  const major = (Math.trunc(low / 2 ** 8) & 0xfff) >>> 0;
  const minor = ((low & 0xff) | ((low >>> 12) & 0xfff00)) >>> 0;
  return { major, minor };
}
