// Plays one seed again and says what happened: `node test/sim/replay.ts --seed N [--world LAYOUT]`.
import { parseArgs } from 'node:util';
import { play } from './play.ts';
import { layouts } from './layouts.ts';

const { values } = parseArgs({
  options: { seed: { type: 'string' }, world: { type: 'string', default: 'crashes' } },
});
const layout = layouts[values.world];
if (!layout)
  throw new Error(`no world ${values.world}; there are ${Object.keys(layouts).join(', ')}`);
const { found, trace, steps, requests } = await play({ seed: Number(values.seed ?? 1), ...layout });
for (const line of trace) console.log(line);
console.log(`${steps} steps, ${requests} requests`);
for (const finding of found.slice(0, 5)) console.log(`FOUND ${finding}`);
if (found.length > 0) process.exitCode = 1;
