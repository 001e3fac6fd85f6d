// The fetcher without the network: which sources it keeps, what it says where it cannot work. That
// programs are fetched and run is shown by every test that uses them.

import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { whyNoApt } from './apt.ts';
import { debianSources } from './debian-sources.ts';
import { tools } from './tools.ts';

t.test('keeps the distribution’s own sources, in both formats', async (t) => {
  const etc = t.testdir({
    'sources.list': `# comment
deb http://mirror/debian bookworm main contrib # tail
deb-src http://mirror/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror/security bookworm-security main
deb http://mirror/debian bookworm-backports main
`,
    'sources.list.d': {
      'vendor.list': 'deb https://packages.vendor.example/apt vendor-bookworm main\n',
      'debian.sources': `Types: deb deb-src
# a comment
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
 bookworm-backports
Components: main
Signed-By:
 -----BEGIN KEY-----
 .
 -----END KEY-----

Types: deb
Enabled: no
URIs: http://off.example/
Suites: bookworm
Components: main
`,
      'old.list.save': 'deb http://saved.example/ bookworm main\n',
    },
  });
  t.equal(
    debianSources(etc, 'bookworm'),
    `Types: deb
URIs: http://mirror/debian
Suites: bookworm
Components: main contrib

Types: deb
URIs: http://mirror/security
Suites: bookworm-security
Components: main
Architectures: amd64
Signed-By: /k.gpg

Types: deb
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
Components: main
signed-by: 
 -----BEGIN KEY-----
 .
 -----END KEY-----
`,
  );
  t.throws(() => debianSources(etc, 'trixie'), /no source for trixie/);
});

t.test('says why apt cannot be used', async (t) => {
  t.equal(whyNoApt('ID=fedora\n'), 'not Debian (this is fedora)');
  t.equal(whyNoApt(''), 'not Debian (this is unknown)');
  const path = process.env['PATH'];
  t.teardown(() => (process.env['PATH'] = path));
  process.env['PATH'] = t.testdir();
  t.equal(whyNoApt('ID=debian\n'), 'apt-get not found');
  t.equal(whyNoApt('ID=ubuntu\nID_LIKE="debian"\n'), 'apt-get not found');
});

t.test('without apt: uses what is on PATH, names what is missing, never throws', async (t) => {
  const folder = t.testdir({ path: { runc: '#!/bin/sh\n', conmon: 'not executable' } });
  chmodSync(join(folder, 'path', 'runc'), 0o755);
  const path = process.env['PATH'];
  t.teardown(() => (process.env['PATH'] = path));
  process.env['PATH'] = join(folder, 'path');
  const found = await tools(['runtime'], { folder: join(folder, 'tools') });
  t.equal(found.path('runc'), join(folder, 'path', 'runc'));
  t.equal(found.lacks('runc'), false);
  t.equal(found.lacks('runc', 'conmon'), `conmon: ${whyNoApt() ?? ''}`);
  t.throws(() => found.path('conmon'), /conmon: /);
  t.throws(() => found.path('skopeo'), /was not asked for/);
  t.match(found.env({ PATH: '/a' }), { PATH: `${found.bin}:/a` });
});
