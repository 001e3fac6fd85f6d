// What the tests, the demo and the bench need from Debian: which program, from which packages, and
// how to see that it runs. The packages' dependencies are found by apt, not listed here.

/** Programs that are fetched together: for runners, for building images, for the bench's rivals. */
export type Group = 'runtime' | 'images' | 'bench';

/** One program. */
export interface Wanted {
  readonly group: Group;
  /** The packages whose files it needs, beyond the libraries that apt finds by itself. */
  readonly packages: readonly string[];
  /** Where the program lies in its package, tried in this order. */
  readonly files: readonly string[];
  /** Arguments with which it must end with exit code 0 and change nothing. */
  readonly probe: readonly string[];
  /** Arguments put before the caller's when the fetched one is used; `{root}` is the unpacked tree. */
  readonly prefix?: readonly string[];
  /** Environment of the fetched one; `{root}` as above. */
  readonly env?: Readonly<Record<string, string>>;
}

const version = ['--version'] as const;

/** Every program that may be asked for, by its name on PATH. */
export const catalog = {
  runc: { group: 'runtime', packages: ['runc'], files: ['usr/sbin/runc'], probe: version },
  conmon: { group: 'runtime', packages: ['conmon'], files: ['usr/bin/conmon'], probe: version },
  ip: {
    group: 'runtime',
    packages: ['iproute2'],
    files: ['bin/ip', 'usr/bin/ip', 'sbin/ip'],
    probe: ['-Version'],
  },
  tc: {
    group: 'runtime',
    packages: ['iproute2'],
    files: ['sbin/tc', 'usr/sbin/tc'],
    probe: ['-Version'],
    env: { TC_LIB_DIR: '{root}/usr/lib/tc' },
  },
  nft: {
    group: 'runtime',
    packages: ['nftables'],
    files: ['usr/sbin/nft', 'sbin/nft'],
    probe: version,
  },
  setfattr: { group: 'runtime', packages: ['attr'], files: ['usr/bin/setfattr'], probe: version },
  getfattr: { group: 'runtime', packages: ['attr'], files: ['usr/bin/getfattr'], probe: version },
  unshare: {
    group: 'runtime',
    packages: ['util-linux'],
    files: ['usr/bin/unshare'],
    probe: version,
  },
  nsenter: {
    group: 'runtime',
    packages: ['util-linux'],
    files: ['usr/bin/nsenter'],
    probe: version,
  },
  mount: {
    group: 'runtime',
    packages: ['mount'],
    files: ['bin/mount', 'usr/bin/mount'],
    probe: version,
  },
  umount: {
    group: 'runtime',
    packages: ['mount'],
    files: ['bin/umount', 'usr/bin/umount'],
    probe: version,
  },
  'docker-registry': {
    group: 'images',
    packages: ['docker-registry'],
    files: ['usr/bin/docker-registry'],
    probe: version,
  },
  skopeo: {
    group: 'images',
    packages: ['skopeo', 'golang-github-containers-common', 'golang-github-containers-image'],
    files: ['usr/bin/skopeo'],
    probe: version,
    // skopeo refuses to copy anything without a policy, and only looks for it in /etc.
    prefix: ['--policy', '{root}/etc/containers/policy.json'],
  },
  umoci: { group: 'images', packages: ['umoci'], files: ['usr/bin/umoci'], probe: version },
  // Copied into test images, hence the static one.
  busybox: {
    group: 'images',
    packages: ['busybox-static'],
    files: ['bin/busybox', 'usr/bin/busybox'],
    probe: ['true'],
  },
  nginx: {
    group: 'bench',
    packages: ['nginx-light', 'nginx', 'nginx-common'],
    files: ['usr/sbin/nginx'],
    probe: ['-v'],
  },
  'redis-server': {
    group: 'bench',
    packages: ['redis-server', 'redis-tools'],
    files: ['usr/bin/redis-check-rdb', 'usr/bin/redis-server'],
    probe: version,
  },
  // The smallest C compiler there is: it builds the library that makes fsync slower.
  tcc: {
    group: 'bench',
    packages: ['tcc'],
    files: ['usr/bin/tcc'],
    probe: ['-E', '-x', 'c', '/dev/null'],
    prefix: ['-B{root}/usr/lib/{triplet}/tcc', '-I{root}/usr/lib/{triplet}/tcc/include'],
  },
} as const satisfies Record<string, Wanted>;

/** The name of a program in the catalog. */
export type ToolName = keyof typeof catalog;

/** All names, or those of some groups. */
export function toolNames(groups?: readonly Group[]): ToolName[] {
  const names = Object.keys(catalog) as ToolName[];
  return groups === undefined ? names : names.filter((n) => groups.includes(catalog[n].group));
}
