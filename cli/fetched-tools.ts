// Where `npm run tools` puts runc, conmon and their kin in a checkout, so that an agent started from it finds them without
// being told.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The folder to look for programs in before PATH: as the environment says, else the checkout's own, if it is there. */
export function toolsPathOf(env: Readonly<Record<string, string | undefined>>): string | undefined {
  const folder = fileURLToPath(new URL('../.tools/bin', import.meta.url));
  return env['RUNMESH_TOOLS_PATH'] ?? (existsSync(folder) ? folder : undefined);
}
