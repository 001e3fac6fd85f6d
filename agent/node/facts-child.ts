// The process in which systeminformation looks at the host. Prints one JSON object (`learnt` in facts.ts).
import si from 'systeminformation';

process.stdin.on('end', () => process.kill(-process.pid, 'SIGKILL')).resume();

const missing: string[] = [];

/** One look; a failure costs only its own facts (N1). */
async function look<T>(name: string, asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    missing.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

const [os, cpu, memory, system, network] = await Promise.all([
  look('os', si.osInfo()),
  look('cpu', si.cpu()),
  look('memory', si.mem()),
  look('system', si.system()),
  look('network', si.networkInterfaces('default')),
]);

const said = (value: string | undefined): string | undefined => value?.trim() || undefined;
/** systeminformation says 0, -1 or null for what it does not know. */
const positive = (value: number | null | undefined): number | undefined =>
  typeof value === 'number' && value > 0 ? value : undefined;

const facts = {
  os: said(os && `${os.distro} ${os.release}`),
  kernel: said(os?.kernel),
  arch: said(os?.arch),
  cpuModel: said(cpu && `${cpu.manufacturer} ${cpu.brand}`),
  cpuCores: positive(cpu?.cores),
  memoryTotalBytes: positive(memory?.total),
  memoryFreeBytes: positive(memory?.available),
  networkMbps: positive(network?.speed),
  virtualisation: system?.virtual ? said(system.virtualHost) || said(system.model) : undefined,
  missing,
};
process.stdout.write(JSON.stringify(facts), () => process.exit(0));
