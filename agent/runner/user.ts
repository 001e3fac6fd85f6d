// Who a container runs as: the image's USER, names looked up in the image's own passwd and group files. Links on the
// way are resolved inside the image, as the kernel would after chroot; nothing outside is ever read.
import { lstat, open, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../../shared/failure.ts';

export interface ContainerUser {
  uid: number;
  gid: number;
  additionalGids: number[];
  home?: string;
}

const LINKS = 40;
/** More than any real passwd file: an image may hold anything. */
const FILE_BYTES = 1024 * 1024;

/** The path on this machine that `path` means inside `root`, with every link resolved within it. */
export async function resolveInside(root: string, path: string): Promise<string> {
  const todo = path.split('/').reverse();
  let at: string[] = [];
  for (let links = 0; todo.length > 0;) {
    const name = todo.pop();
    if (name === undefined || name === '' || name === '.') continue;
    if (name === '..') {
      at.pop();
      continue;
    }
    const here = join(root, ...at, name);
    const stats = await lstat(here).catch(() => undefined);
    if (stats?.isSymbolicLink() !== true) {
      at.push(name);
      continue;
    }
    links += 1;
    if (links > LINKS) throw new Failure('IMAGE_INVALID', `${path}: too many links`);
    const target = await readlink(here);
    if (target.startsWith('/')) at = [];
    todo.push(...target.split('/').reverse());
  }
  return join(root, ...at);
}

/** @throws Failure IMAGE_INVALID when a name is not in the image's files */
export async function containerUser(rootfs: string, user: string): Promise<ContainerUser> {
  const passwd = await table(rootfs, '/etc/passwd');
  const group = await table(rootfs, '/etc/group');
  return findUser(user, passwd, group);
}

/** The rule itself (image-spec conversion.md): numbers verbatim, names must be known. */
export function findUser(user: string, passwd: string[][], group: string[][]): ContainerUser {
  const [who = '', whichGroup] = (user === '' ? '0' : user).split(':', 2);
  const row = passwd.find(([name, , uid]) => name === who || (isId(who) && uid === who));
  const isName = row !== undefined && !isId(who);
  if (row === undefined && !isId(who)) {
    throw new Failure('IMAGE_INVALID', `user ${who} is not in the image's /etc/passwd`);
  }
  const home = row?.[5];
  const found = {
    uid: id(row?.[2] ?? who, 'user'),
    ...(home === undefined || home === '' ? {} : { home }),
  };
  if (whichGroup !== undefined && whichGroup !== '') {
    const groupRow = group.find(([name]) => name === whichGroup);
    if (groupRow === undefined && !isId(whichGroup)) {
      throw new Failure('IMAGE_INVALID', `group ${whichGroup} is not in the image's /etc/group`);
    }
    return { ...found, gid: id(groupRow?.[2] ?? whichGroup, 'group'), additionalGids: [] };
  }
  const memberOf = group.filter(([, , , members]) => isName && members?.split(',').includes(who));
  return {
    ...found,
    gid: id(row?.[3] ?? '0', 'group'),
    additionalGids: memberOf.map(([, , gid]) => id(gid ?? '', 'group')),
  };
}

function isId(text: string): boolean {
  return /^\d{1,10}$/.test(text);
}

function id(text: string, what: string): number {
  const number = Number(text);
  if (!isId(text) || number > 0xffff_fffe) {
    throw new Failure('IMAGE_INVALID', `${what} id ${text} is not a number that can be one`);
  }
  return number;
}

async function table(rootfs: string, path: string): Promise<string[][]> {
  const file = await resolveInside(rootfs, path);
  const stats = await lstat(file).catch(() => undefined);
  if (stats?.isFile() !== true || stats.size > FILE_BYTES) return [];
  const handle = await open(file);
  try {
    return (await handle.readFile('utf8')).split('\n').map((line) => line.trim().split(':'));
  } finally {
    await handle.close();
  }
}
