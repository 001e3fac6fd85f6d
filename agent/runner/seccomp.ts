// The system calls that a runner may not make. A list of what is denied, not of what is allowed: it names what has
// repeatedly been a way out of containers or reaches the whole machine, so that a new call of a new libc or driver
// works without us. What needs a capability that we do not give fails anyway; here it does not reach that code.

/** Fail as if not permitted. */
const DENIED = [
  // Keys are not namespaced.
  ...['add_key', 'keyctl', 'request_key'],
  // Programs in the kernel, its memory, its counters.
  ...['bpf', 'perf_event_open', 'userfaultfd', 'lookup_dcookie', 'kcmp'],
  // The kernel itself.
  ...['kexec_load', 'kexec_file_load', 'reboot', 'init_module', 'finit_module', 'delete_module'],
  ...['create_module', 'get_kernel_syms', 'query_module', 'syslog', '_sysctl', 'nfsservctl'],
  // Mounts and namespaces; open_by_handle_at walked out of containers once.
  ...['mount', 'umount', 'umount2', 'pivot_root', 'move_mount', 'open_tree', 'fsopen', 'fsconfig'],
  ...['fsmount', 'fspick', 'mount_setattr', 'setns', 'unshare', 'open_by_handle_at'],
  // The machine's clock, accounting, swap, quota, ports.
  ...[
    'acct',
    'clock_settime',
    'settimeofday',
    'stime',
    'swapon',
    'swapoff',
    'quotactl',
    'quotactl_fd',
  ],
  ...['iopl', 'ioperm', 'vm86', 'vm86old', 'uselib', 'ustat', 'sysfs', 'vhangup', 'fanotify_init'],
];

/** Fail as if the kernel did not have them: callers fall back (glibc to clone, runtimes to epoll). */
const ABSENT = ['clone3', 'io_uring_setup', 'io_uring_enter', 'io_uring_register'];

const EPERM = 1;
const ENOSYS = 38;

/** CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET: each by itself, since a rule matches one masked value. */
const CLONE_FLAGS = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000];

const ARCHITECTURES: Readonly<Record<string, readonly string[]>> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
};

export interface SeccompProfile {
  defaultAction: string;
  architectures: readonly string[];
  syscalls: readonly {
    names: readonly string[];
    action: string;
    errnoRet: number;
    args?: readonly { index: number; value: number; valueTwo: number; op: string }[];
  }[];
}

/** `architecture` as Node names it. */
export function seccompProfile(architecture: string): SeccompProfile {
  return {
    defaultAction: 'SCMP_ACT_ALLOW',
    architectures: ARCHITECTURES[architecture] ?? [],
    syscalls: [
      { names: DENIED, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM },
      { names: ABSENT, action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
      ...CLONE_FLAGS.map((flag) => ({
        names: ['clone'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: EPERM,
        args: [{ index: 0, value: flag, valueTwo: flag, op: 'SCMP_CMP_MASKED_EQ' }],
      })),
    ],
  };
}
