// Registries that misbehave (F53): what each failure is called, how often it is tried, and that credentials stay with
// the host they are for (T9).
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { BlobFetcher } from '../../agent/content/fetch-blob.ts';
import { ContentStore } from '../../agent/content/content-store.ts';
import { RegistryOrigin } from '../../agent/image/registry-origin.ts';
import { systemChance } from '../../shared/chance.ts';
import { systemClock as clock } from '../../shared/clock.ts';
import { digestOf, type Digest } from '../../shared/digest.ts';
import { asFailure, type Failure } from '../../shared/failure.ts';
import { limits } from '../../shared/limits.ts';
import { RegistryClient } from '../../shared/registry/registry-client.ts';
import { resolveImage } from '../../shared/registry/resolve-image.ts';
import { startHttpScript, type Answering } from '../fakes/http-script.ts';

const never = new AbortController().signal;
const base = await mkdtemp(join(tmpdir(), 'runmesh-registry-'));
t.teardown(() => rm(base, { recursive: true, force: true }));

const OCI = 'application/vnd.oci.image.manifest.v1+json';
const config = {
  mediaType: 'application/vnd.oci.image.config.v1+json',
  digest: digestOf('c'),
  size: 1,
};
const good = JSON.stringify({ schemaVersion: 2, mediaType: OCI, config, layers: [] });
const login = { username: 'user', password: 'pass,"word' };

async function resolving(answer: Answering, credentials?: typeof login) {
  const script = await startHttpScript(answer);
  try {
    const failure = await resolveImage(`${script.host}/a/b:tag`, {
      clock,
      signal: never,
      ...(credentials ? { credentials } : {}),
    }).then(
      () => undefined,
      (error: unknown): Failure => asFailure(error),
    );
    return { failure, asked: script.asked, host: script.host };
  } finally {
    await script[Symbol.asyncDispose]();
  }
}

const status =
  (code: number, headers: Record<string, string> = {}, body = ''): Answering =>
  (_, response) =>
    void response.writeHead(code, headers).end(body);
const manifest = (body: string, type = OCI): Answering =>
  status(200, { 'content-type': type }, body);

t.test('each refusal has its own code, and names the image', async (t) => {
  const cases: [string, Answering, string, RegExp][] = [
    ['401 without a challenge', status(401), 'REGISTRY_UNAUTHORIZED', /asks for nothing we know/],
    ['403', status(403), 'REGISTRY_FORBIDDEN', /right to pull/],
    ['404', status(404), 'IMAGE_NOT_FOUND', /check the name/],
    ['429', status(429, { 'retry-after': '7' }), 'REGISTRY_BUSY', /too many requests/],
    ['500', status(500), 'REGISTRY_UNAVAILABLE', /status 500/],
    ['502', status(502), 'REGISTRY_UNAVAILABLE', /status 502/],
    ['hangs up', (request) => void request.socket.destroy(), 'REGISTRY_UNAVAILABLE', /reached/],
    ['not JSON', manifest('{'), 'IMAGE_INVALID', /not JSON/],
    ['an array', manifest('[]'), 'IMAGE_INVALID', /manifest is wrong/],
    ['schema 1', manifest('{"schemaVersion":1,"fsLayers":[]}'), 'IMAGE_INVALID', /schema 1/],
    [
      'schema 1 by its type',
      manifest(good, 'application/vnd.docker.distribution.manifest.v1+prettyjws'),
      'IMAGE_INVALID',
      /schema 1/,
    ],
    [
      'an index and a manifest at once',
      manifest(JSON.stringify({ ...JSON.parse(good), manifests: [] })),
      'IMAGE_INVALID',
      /at once/,
    ],
    [
      'another type in the body',
      manifest(good, 'application/vnd.oci.image.index.v1+json'),
      'IMAGE_INVALID',
      /and is not/,
    ],
    ['an artifact', manifest(good.replace(OCI, 'application/x')), 'IMAGE_INVALID', /not an image/],
    ['a bad digest inside', manifest(good.replace(/[0-9a-f]{64}/, 'x')), 'IMAGE_INVALID', /digest/],
    [
      'an index of nothing but attestations',
      manifest(
        JSON.stringify({
          schemaVersion: 2,
          manifests: [{ ...config, platform: { os: 'unknown', architecture: 'unknown' } }],
        }),
        '',
      ),
      'IMAGE_NO_PLATFORM',
      /holds no image/,
    ],
    [
      'a huge manifest',
      manifest(`"${'x'.repeat(limits.manifestBytes)}"`),
      'IMAGE_INVALID',
      /more than/,
    ],
    [
      'another digest than announced',
      status(200, { 'content-type': OCI, 'docker-content-digest': digestOf('other') }, good),
      'DIGEST_MISMATCH',
      /sent a manifest/,
    ],
    [
      'a body cut short',
      (_, response) => {
        response.writeHead(200, { 'content-type': OCI, 'content-length': '5000' });
        response.write('{');
        setTimeout(() => response.destroy(), 20);
      },
      'REGISTRY_UNAVAILABLE',
      /broke off/,
    ],
  ];
  for (const [name, answer, code, words] of cases) {
    const { failure } = await resolving(answer);
    t.equal(failure?.code, code, name);
    t.match(failure?.message, words, name);
  }
  const { failure, host } = await resolving(status(404));
  t.match(failure?.message, `${host}/a/b:tag`);
  t.equal(
    (await resolving(status(429, { 'retry-after': '7' }))).failure?.detail['retryAfterMs'],
    7000,
  );
  t.notOk((await resolving(manifest(good))).failure, 'the good one passes');
});

t.test('tokens', async (t) => {
  const challenge = (realm: string): Record<string, string> => ({
    'www-authenticate': `Bearer realm="${realm}",service="a, \\"b\\"",scope="repository:a/b:pull"`,
  });
  const tokenRegistry =
    (tokens: (count: number) => [number, string], accepts: string): Answering =>
    (request, response, count) => {
      if (request.url?.startsWith('/token')) {
        const [code, body] = tokens(count);
        return void response.writeHead(code).end(body);
      }
      if (request.headers.authorization === accepts)
        return manifest(good)(request, response, count);
      const realm = `http://${request.headers.host}/token`;
      response.writeHead(401, challenge(realm)).end();
    };
  await t.test('are asked for as the challenge says, with the credentials', async (t) => {
    const { failure, asked } = await resolving(
      tokenRegistry(() => [200, '{"token":"T1"}'], 'Bearer T1'),
      login,
    );
    t.notOk(failure);
    t.equal(asked.length, 3);
    const url = new URL(asked[1]?.url ?? '', 'http://x');
    t.equal(url.searchParams.get('service'), 'a, "b"');
    t.equal(url.searchParams.get('scope'), 'repository:a/b:pull');
    const basic = Buffer.from(`${login.username}:${login.password}`).toString('base64');
    t.equal(asked[1]?.authorization, `Basic ${basic}`);
    t.equal(asked[0]?.authorization, undefined, 'nothing before the challenge');
    t.equal(asked[2]?.authorization, 'Bearer T1');
  });
  await t.test('by access_token, without credentials', async (t) => {
    const { failure, asked } = await resolving(
      tokenRegistry(() => [200, '{"access_token":"T2"}'], 'Bearer T2'),
    );
    t.notOk(failure);
    t.equal(asked[1]?.authorization, undefined);
  });
  await t.test('that are refused end the asking (401 loop)', async (t) => {
    const { failure, asked } = await resolving(tokenRegistry(() => [200, '{"token":"no"}'], 'x'));
    t.equal(failure?.code, 'REGISTRY_UNAUTHORIZED');
    t.equal(asked.length, 3);
  });
  const bad: [string, [number, string], string][] = [
    ['refused', [401, ''], 'REGISTRY_UNAUTHORIZED'],
    ['500', [500, ''], 'REGISTRY_UNAVAILABLE'],
    ['not JSON', [200, 'token'], 'REGISTRY_UNAVAILABLE'],
    ['no token', [200, '{"token":7}'], 'REGISTRY_UNAVAILABLE'],
    ['a line break in it', [200, '{"token":"a\\r\\nx: y"}'], 'REGISTRY_UNAVAILABLE'],
    ['huge', [200, `{"token":"${'t'.repeat(limits.tokenBytes)}"}`], 'REGISTRY_UNAVAILABLE'],
  ];
  for (const [name, answer, code] of bad) {
    const { failure } = await resolving(
      tokenRegistry(() => answer, 'x'),
      login,
    );
    t.equal(failure?.code, code, name);
  }
  await t.test('are not asked for at odd places', async (t) => {
    for (const realm of ['http://203.0.113.9/token', 'ftp://x/', 'not a url', '']) {
      const { failure, asked } = await resolving(status(401, challenge(realm)), login);
      t.equal(failure?.code, 'REGISTRY_UNAUTHORIZED', realm);
      t.equal(asked.length, 1);
    }
  });
  await t.test('are kept for the next question', async (t) => {
    await using script = await startHttpScript(
      tokenRegistry(() => [200, '{"token":"T3","expires_in":300}'], 'Bearer T3'),
    );
    await using client = new RegistryClient({ registry: script.host, clock });
    await client.manifest('a/b', 'tag', never);
    await client.manifest('a/b', 'tag', never);
    t.equal(script.asked.filter(({ url }) => url.startsWith('/token')).length, 1);
    t.equal(script.asked.length, 4);
  });
});

t.test('redirects', async (t) => {
  const body = Buffer.from('the blob');
  await using other = await startHttpScript(status(200, {}, body.toString()));
  const redirecting =
    (to: string): Answering =>
    (request, response) => {
      if (request.headers.authorization === undefined) {
        const challenge = { 'www-authenticate': 'Basic realm="x"' };
        return void response.writeHead(401, challenge).end();
      }
      response.writeHead(307, { location: to }).end();
    };
  await using script = await startHttpScript(redirecting(`http://${other.host}/cdn?sig=1`));
  await using client = new RegistryClient({ registry: script.host, clock, credentials: login });
  const { answer } = await client.blob('a/b', digestOf(body), 0, never);
  t.equal(await answer.body.text(), 'the blob');
  t.match(script.asked[1]?.authorization, /^Basic /);
  t.strictSame(
    other.asked.map(({ authorization }) => authorization),
    [undefined],
    'the other host sees no credentials',
  );
  await t.test('a 401 of the other host is not answered', async (t) => {
    await using greedy = await startHttpScript(
      status(401, { 'www-authenticate': 'Basic realm="mine"' }),
    );
    await using first = await startHttpScript(redirecting(`http://${greedy.host}/`));
    await using asking = new RegistryClient({ registry: first.host, clock, credentials: login });
    await t.rejects(asking.blob('a/b', digestOf(body), 0, never), {
      code: 'REGISTRY_UNAUTHORIZED',
    });
    t.strictSame(
      greedy.asked.map(({ authorization }) => authorization),
      [undefined],
    );
  });
  await t.test('loops end', async (t) => {
    const { failure, asked } = await resolving((request, response) => {
      response.writeHead(302, { location: `${request.url}x` }).end();
    });
    t.equal(failure?.code, 'REGISTRY_UNAVAILABLE');
    t.match(failure?.message, /more than 5 times/);
    t.equal(asked.length, limits.redirects + 1);
  });
  for (const to of ['file:///etc/passwd', 'gopher://x/', 'http://'])
    t.equal(
      (await resolving(status(302, { location: to }))).failure?.code,
      'REGISTRY_UNAVAILABLE',
      to,
    );
});

let stores = 0;
async function fetching(answer: Answering, wanted: { digest: Digest; sizeBytes: number }) {
  const folder = join(base, `store${(stores += 1)}`);
  const store = await ContentStore.open({ folder, chance: systemChance, reserveBytes: 0 });
  const backoff = { baseMs: 1, capMs: 5 };
  const fetcher = new BlobFetcher({ store, clock, chance: systemChance, backoff });
  await using script = await startHttpScript(answer);
  await using client = new RegistryClient({ registry: script.host, clock });
  const origin = new RegistryOrigin(client, 'a/b', 'blobs');
  const failure = await fetcher.fetch({ ...wanted, origin }, never).then(
    () => undefined,
    (error: unknown): Failure => asFailure(error),
  );
  t.strictSame(await readdir(join(folder, 'ingest')), [], 'no ingest is left');
  return { failure, asked: script.asked, store, stats: fetcher.stats };
}

t.test('blobs', async (t) => {
  const body = Buffer.alloc(300_000, 'blob of some length ');
  const wanted = { digest: digestOf(body), sizeBytes: body.length };
  const ranged: Answering = (request, response) => {
    const from = Number(/bytes=([0-9]+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const headers = { 'content-range': `bytes ${from}-${body.length - 1}/${body.length}` };
    response.writeHead(from > 0 ? 206 : 200, from > 0 ? headers : {}).end(body.subarray(from));
  };
  await t.test('wrong bytes are tried once more and never kept', async (t) => {
    const { failure, asked, store } = await fetching(
      status(200, {}, 'x'.repeat(body.length)),
      wanted,
    );
    t.equal(failure?.code, 'DIGEST_MISMATCH');
    t.equal(asked.length, 2);
    t.equal(store.stats.blobs, 0);
  });
  await t.test('too many bytes', async (t) => {
    const { failure, asked } = await fetching(status(200, {}, `${body.toString()}x`), wanted);
    t.equal(failure?.code, 'BLOB_TOO_LARGE');
    t.equal(asked.length, 1);
  });
  await t.test('a broken transfer goes on where it broke off', async (t) => {
    const { failure, asked, stats, store } = await fetching((request, response, count) => {
      if (count > 1) return ranged(request, response, count);
      response.writeHead(200, { 'content-length': String(body.length) });
      response.write(body.subarray(0, 100_000));
      setTimeout(() => response.destroy(), 50);
    }, wanted);
    t.notOk(failure);
    t.equal(asked[1]?.range, 'bytes=100000-');
    t.equal(stats.sources.origin.bytes, body.length, 'no byte twice');
    t.ok(store.has(wanted.digest));
  });
  await t.test('also where the registry cannot seek', async (t) => {
    const { failure } = await fetching((request, response, count) => {
      if (count > 1) return status(200, {}, body.toString())(request, response, count);
      response.writeHead(200, { 'content-length': String(body.length) });
      response.write(body.subarray(0, 100_000));
      setTimeout(() => response.destroy(), 50);
    }, wanted);
    t.notOk(failure);
  });
  await t.test('a range that was not asked for is not taken', async (t) => {
    const headers = { 'content-range': `bytes 5-9/${body.length}` };
    const { failure } = await fetching(status(206, headers, 'wrong'), wanted);
    t.equal(failure?.code, 'REGISTRY_UNAVAILABLE');
  });
  await t.test('500 and 429 are tried again, Retry-After is waited for', async (t) => {
    const fromMs = clock.elapsed();
    const { failure, asked } = await fetching((request, response, count) => {
      if (count === 1) return status(500)(request, response, count);
      if (count === 2) return status(429, { 'retry-after': '1' })(request, response, count);
      return ranged(request, response, count);
    }, wanted);
    t.notOk(failure);
    t.equal(asked.length, 3);
    t.ok(clock.elapsed() - fromMs >= 990, 'waited');
  });
  await t.test('not for ever', async (t) => {
    const { failure, asked } = await fetching(status(503), wanted);
    t.equal(failure?.code, 'REGISTRY_UNAVAILABLE');
    t.equal(asked.length, limits.originTries);
  });
  await t.test('404 and 403 are final', async (t) => {
    for (const [code, means] of [
      [404, 'IMAGE_NOT_FOUND'],
      [403, 'REGISTRY_FORBIDDEN'],
    ] as const) {
      const { failure, asked } = await fetching(status(code), wanted);
      t.equal(failure?.code, means);
      t.equal(asked.length, 1);
    }
  });
});
