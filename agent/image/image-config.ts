// The config of an image (image-spec config.md): what it says about running it, and the digests of its layers unpacked.
// Pure. Missing and null fields are as if not there; builders write both.
import { z } from 'zod';
import { isDigest, type Digest } from '../../shared/digest.ts';
import { Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import { platformText, type Platform } from '../../shared/registry/manifest.ts';
import type { ImageConfig } from './image.ts';

const strings = z.array(z.string().max(131_072)).max(4_096).nullish();
const document = z.object({
  os: z.string(),
  architecture: z.string(),
  config: z
    .object({
      Env: strings,
      Entrypoint: strings,
      Cmd: strings,
      WorkingDir: z.string().max(4_096).nullish(),
      User: z.string().max(1_024).nullish(),
      StopSignal: z.string().max(64).nullish(),
    })
    .nullish(),
  rootfs: z.object({
    type: z.literal('layers'),
    diff_ids: z
      .array(z.string().refine(isDigest, 'expected a sha256 digest'))
      .max(limits.imageLayers)
      .nullish(),
  }),
});

/** @throws Failure IMAGE_INVALID, IMAGE_NO_PLATFORM */
export function parseImageConfig(
  body: Uint8Array,
  platform: Platform,
  shown: string,
): { config: ImageConfig; diffIds: readonly Digest[] } {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body).toString('utf8'));
  } catch {
    throw new Failure('IMAGE_INVALID', `${shown}: the image config is not JSON`);
  }
  const read = document.safeParse(json);
  if (!read.success) {
    const [issue] = read.error.issues;
    throw new Failure(
      'IMAGE_INVALID',
      `${shown}: the image config is wrong at ${issue?.path.join('.')}: ${issue?.message}`,
    );
  }
  const { os, architecture, config, rootfs } = read.data;
  if (os !== platform.os || architecture !== platform.architecture)
    throw new Failure(
      'IMAGE_NO_PLATFORM',
      `${shown} is for ${os}/${architecture}, this machine is ${platformText(platform)}`,
    );
  const workingDir = config?.WorkingDir || '/';
  return {
    diffIds: rootfs.diff_ids ?? [],
    config: {
      env: config?.Env ?? [],
      entrypoint: config?.Entrypoint ?? [],
      cmd: config?.Cmd ?? [],
      workingDir: workingDir.startsWith('/') ? workingDir : `/${workingDir}`,
      user: config?.User ?? '',
      ...(config?.StopSignal ? { stopSignal: config.StopSignal } : {}),
    },
  };
}
