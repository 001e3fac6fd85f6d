// References, challenges, platforms: the pure parts of reading registries, with examples and with chance.
import fc from 'fast-check';
import t from 'tap';
import { digestOf } from '../../shared/digest.ts';
import { formatImageRef, parseImageRef, registryBase } from '../../shared/image-ref.ts';
import { parseChallenges } from '../../shared/registry/challenge.ts';
import { chooseEntry, parseManifest } from '../../shared/registry/manifest.ts';

const digest = digestOf('x');

t.test('references as docker reads them', async (t) => {
  const cases: Record<string, string> = {
    busybox: 'docker.io/library/busybox:latest',
    'busybox:1': 'docker.io/library/busybox:1',
    'acme/app': 'docker.io/acme/app:latest',
    'docker.io/busybox': 'docker.io/library/busybox:latest',
    'index.docker.io/acme/app:V1': 'docker.io/acme/app:V1',
    'localhost/app': 'localhost/app:latest',
    'localhost:5000/a/b/c:1.2-x_y': 'localhost:5000/a/b/c:1.2-x_y',
    '127.0.0.1:5000/app': '127.0.0.1:5000/app:latest',
    '[::1]:5000/app:1': '[::1]:5000/app:1',
    'reg.example/a__b/c--d/e.f': 'reg.example/a__b/c--d/e.f:latest',
    [`busybox@${digest}`]: `docker.io/library/busybox@${digest}`,
    [`reg.example/x:1@${digest}`]: `reg.example/x:1@${digest}`,
  };
  for (const [text, canonical] of Object.entries(cases)) {
    t.equal(formatImageRef(parseImageRef(text)), canonical, text);
    t.strictSame(parseImageRef(canonical), parseImageRef(text));
  }
});

t.test('what cannot be read is refused with the problem', async (t) => {
  const cases: [string, RegExp][] = [
    ['', /empty/],
    ['https://reg.example/x', /scheme/],
    ['a b', /white space/],
    ['Busybox', /lower case/],
    ['reg.example/', /part of the name is empty/],
    ['reg.example//x', /part of the name is empty/],
    ['a/../b', /not allowed/],
    ['x:', /tag/],
    ['x:-bad', /tag/],
    [`x:${'t'.repeat(129)}`, /tag/],
    ['x@sha256:abc', /digest/],
    ['x@md5:0', /digest/],
    ['reg.example:99999/x', /port/],
    ['reg.example:1a/x', /no host/],
    ['-bad.example/x', /no host/],
    ['user@host/x', /digest/],
    [`reg.example/${'a'.repeat(256)}`, /over 255/],
    ['x'.repeat(2000), /longer than/],
    ['a_/b', /not allowed/],
    ['a\0b', /not allowed/],
  ];
  for (const [text, message] of cases)
    t.throws(() => parseImageRef(text), { code: 'IMAGE_REF_INVALID', message }, text);
});

t.test('plain http towards loopback only', async (t) => {
  t.equal(registryBase('docker.io').href, 'https://registry-1.docker.io/');
  for (const host of ['localhost:5000', '127.0.0.1:5000', '127.9.9.9', '[::1]:5000'])
    t.equal(registryBase(host).href, `http://${host}/`);
  for (const host of ['reg.example', '127.0.0.1.example', '10.0.0.1:5000', 'localhost.example'])
    t.equal(registryBase(host).protocol, 'https:', host);
});

t.test('any text is read or refused; what is read reads back the same', async (t) => {
  const text = fc.oneof(
    fc.string({ maxLength: 40 }),
    fc.stringMatching(/^[a-zA-Z0-9.:/@_-]{1,40}$/),
  );
  fc.assert(
    fc.property(text, (given) => {
      try {
        const ref = parseImageRef(given);
        const again = parseImageRef(formatImageRef(ref));
        return JSON.stringify(again) === JSON.stringify(ref);
      } catch (error) {
        return error instanceof Error && 'code' in error && error.code === 'IMAGE_REF_INVALID';
      }
    }),
    { numRuns: 2000 },
  );
  t.pass();
});

const read = (header: string): [string, Record<string, string>][] =>
  parseChallenges(header).map(({ scheme, params }) => [scheme, Object.fromEntries(params)]);

t.test('challenges', async (t) => {
  t.strictSame(read('Bearer realm="https://a/t",service="x, y",scope="repository:a:pull,push"'), [
    ['bearer', { realm: 'https://a/t', service: 'x, y', scope: 'repository:a:pull,push' }],
  ]);
  t.strictSame(read('Basic realm="a \\"b\\"", Bearer realm=r , scope = "s"'), [
    ['basic', { realm: 'a "b"' }],
    ['bearer', { realm: 'r', scope: 's' }],
  ]);
  t.strictSame(read('Negotiate abc==, Basic realm="x"'), [
    ['negotiate', {}],
    ['basic', { realm: 'x' }],
  ]);
  t.strictSame(read('Negotiate, Basic REALM=x'), [
    ['negotiate', {}],
    ['basic', { realm: 'x' }],
  ]);
  t.strictSame(read(',, Basic realm="a", realm="b",,'), [['basic', { realm: 'a' }]]);
  t.strictSame(read('Bearer realm="unended'), [['bearer', {}]]);
  t.strictSame(read(''), []);
});

t.test('challenges written are read back; any text ends', async (t) => {
  const token = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/);
  const challenge = fc.record({
    scheme: token,
    params: fc.dictionary(token, fc.string({ maxLength: 20, unit: 'grapheme-ascii' }), {
      minKeys: 1,
      maxKeys: 4,
    }),
  });
  fc.assert(
    fc.property(fc.array(challenge, { minLength: 1, maxLength: 4 }), (challenges) => {
      const header = challenges
        .map(({ scheme, params }) => {
          const pairs = Object.entries(params).map(
            ([name, value]) => `${name}="${value.replace(/[\\"]/g, '\\$&')}"`,
          );
          return `${scheme} ${pairs.join(', ')}`;
        })
        .join(', ');
      const expected = challenges.map(({ scheme, params }) => [scheme, { ...params }]);
      return JSON.stringify(read(header)) === JSON.stringify(expected);
    }),
  );
  fc.assert(fc.property(fc.string({ maxLength: 200 }), (text) => Array.isArray(read(text))));
  t.pass();
});

t.test('the platform is chosen', async (t) => {
  const of = (architecture: string, variant?: string) => ({
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: digestOf(`${architecture}${variant}`),
    size: 1,
    platform: { os: 'linux', architecture, ...(variant ? { variant } : {}) },
  });
  const index = (...manifests: object[]) => {
    const read = parseManifest(
      Buffer.from(JSON.stringify({ schemaVersion: 2, manifests })),
      'test',
      'application/vnd.oci.image.index.v1+json',
    );
    return read.kind === 'index' ? read.entries : [];
  };
  const platform = { os: 'linux', architecture: 'amd64' };
  const attestation = {
    ...of('amd64'),
    annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
  };
  const entries = index(attestation, of('arm64', 'v8'), of('amd64', 'v3'), of('amd64'));
  t.equal(entries.length, 3);
  t.equal(chooseEntry(entries, platform)?.digest, of('amd64').digest);
  t.equal(chooseEntry(index(of('amd64', 'v2')), platform)?.digest, of('amd64', 'v2').digest);
  t.equal(
    chooseEntry(entries, { os: 'linux', architecture: 'arm64' })?.digest,
    of('arm64', 'v8').digest,
  );
  t.equal(chooseEntry(index(of('riscv64')), platform), undefined);
});
