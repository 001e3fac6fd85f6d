// App files: what is wrong is named with line, column and field, all at once; what has no behaviour yet is said.
import t from 'tap';
import { parseAppFile } from '../../shared/app-file.ts';
import { inactiveFields, parseSize } from '../../shared/app-spec.ts';
import { Failure } from '../../shared/failure.ts';

function problems(text: string): string[] {
  try {
    parseAppFile(text, 'app.yaml');
    return [];
  } catch (thrown) {
    if (!(thrown instanceof Failure)) throw thrown;
    return thrown.message.split('\n');
  }
}

void t.test('defaults are filled in and sizes are bytes', async (t) => {
  const spec = parseAppFile(
    'app: acme/cutout--staging\nimage: x/y:1\nmachine: { gpus: 1, vram: 40GiB, cpu: 0.5 }\n',
    'f',
  );
  t.match(spec, {
    machine: { gpus: 1, vram: 40 * 2 ** 30, cpu: 0.5 },
    scaling: { keep_alive: 60, max_multiplexing: 1, min_concurrency: 0 },
    timeouts: { startup_timeout: 600, request_timeout: 3600, termination_grace_period_seconds: 5 },
    health: { path: '/health' },
  });
  t.same(inactiveFields(spec), []);
});

void t.test('every problem has its line, its column and its field', async (t) => {
  t.same(
    problems(
      [
        'app: Acme',
        'image: x',
        'port: 80000',
        'nope: 1',
        'machine:',
        '  gpus: 9',
        '  vram: lots',
        'weights:',
        '  - to: data',
      ].join('\n'),
    ).map((line) => line.split(': ').slice(0, 2).join(' ')),
    [
      'app.yaml:1:1 app',
      'app.yaml:3:1 port',
      'app.yaml:5:1 machine',
      'app.yaml:9:5 weights[0].from',
      'app.yaml:9:5 weights[0].to',
      'app.yaml:4:1 nope',
    ],
  );
  t.match(problems('app: a/b\napp: a/c\nimage: x'), [/app\.yaml:2:1: yaml: .*unique/i]);
  t.match(problems('app: [a'), [/^app\.yaml:\d+:\d+: yaml: /]);
  t.match(problems('- a\n- b'), [/expected object|expected/i]);
  t.match(problems(''), [/app/]);
});

void t.test('fields that fight each other are refused', async (t) => {
  t.match(problems('app: a/b'), [/image: name an image, or a command with a dir/]);
  t.match(problems('app: a/b\ncommand: [x]'), [/dir: a command without an image needs a dir/]);
  t.match(problems('app: a/b\nimage: x\ndir: .'), [/dir: a dir belongs to a command/]);
  t.match(problems('app: a/b\nimage: x\nscaling: { min_concurrency: 5, max_concurrency: 2 }'), [
    /min_concurrency: is above/,
  ]);
  t.match(
    problems('app: a/b\ncommand: [x]\ndir: .\nweights: [{ from: "https://h/f", to: /etc/x }]'),
    [/weights\[0\]\.to/],
  );
  t.match(problems('app: a/b\nimage: x\nweights: [{ from: "https://h/f", to: /data/../etc/x }]'), [
    /weights\[0\]\.to/,
  ]);
  t.match(problems('app: a/b\nimage: x\nweights: [{ from: "file:///etc/passwd", to: /data/x }]'), [
    /weights\[0\]\.from/,
  ]);
});

void t.test('fields without behaviour yet are named', async (t) => {
  const spec = parseAppFile(
    'app: a/b\nimage: x\nsecrets: [HF_TOKEN]\nauth: public\nlabels: { zone: a }\nuser_namespace: true\nregistry: { secret: s }\nhealth: { path: /h, interval: 5 }\n',
    'f',
  );
  const fields = ['health.interval', 'secrets', 'auth', 'labels', 'registry', 'user_namespace'];
  t.same(inactiveFields(spec), fields);
});

void t.test('sizes', async (t) => {
  t.equal(parseSize('40GiB'), 40 * 2 ** 30);
  t.equal(parseSize('1.5 MB'), 1_500_000);
  t.equal(parseSize(512), 512);
  for (const bad of ['', 'GiB', '-1', '1 G', '1e3', '0x10', '1GiBB'])
    t.equal(parseSize(bad), undefined, bad);
});

void t.test('a bomb of aliases and a file that is too long are refused', async (t) => {
  const bomb = [
    'a: &a [x,x,x,x,x,x,x,x,x]',
    ...'bcdefgh'
      .split('')
      .map((name, at) => `${name}: &${name} [${`*${'abcdefgh'[at] ?? ''},`.repeat(9)}]`),
  ];
  t.ok(problems(bomb.join('\n')).length > 0);
  t.throws(() => parseAppFile(`app: a/b\n# ${'x'.repeat(300_000)}`, 'f'), {
    code: 'INPUT_TOO_LARGE',
  });
});
