// The types of folder-lock.mjs, which stays plain JavaScript so that Node 20 can run it.

/**
 * Waits until this process holds the lock at `path` and returns the function that gives it back.
 * `onWait(pid)` is called once when somebody else holds it. Not reentrant.
 */
export function takeFolderLock(path: string, onWait?: (pid: number) => void): Promise<() => void>;
