// An app for the tests in the bare busybox image: httpd with a handful of scripts that echo, wait, fail and measure as the
// input says. Each script tells on stderr whom it served, so that executions can be counted in the runner's log.

const EXECUTED = 'executed';

const field = (name: string): string =>
  `$(echo "$input" | sed -n 's/.*"${name}" *: *"\\{0,1\\}\\([^",}]*\\).*/\\1/p')`;

const INPUT = `input=$(head -c "\${CONTENT_LENGTH:-0}"); echo "${EXECUTED} $HTTP_X_FAL_REQUEST_ID" >&2`;
const JSON_HEAD = `printf 'Content-Type: application/json\\r\\n\\r\\n'`;

/** Path below /cgi-bin/ → its script. */
const scripts: Record<string, string> = {
  // What the app sees.
  echo: `${INPUT}
${JSON_HEAD}
printf '{"method":"%s","query":"%s","port":"%s","host":"%s","header":"%s","input":%s}' \\
  "$REQUEST_METHOD" "$QUERY_STRING" "$PORT" "$(hostname)" "$HTTP_X_CALLER" "\${input:-null}"`,
  // The same bytes and type back.
  mirror: `printf 'Content-Type: %s\\r\\n\\r\\n' "$CONTENT_TYPE"
exec head -c "\${CONTENT_LENGTH:-0}"`,
  // { "status": 422 }
  status: `${INPUT}
printf 'Status: %s As Asked\\r\\nX-App-Said: so\\r\\nContent-Type: application/json\\r\\n\\r\\n' "${field('status')}"
printf '{"detail":[{"loc":["body","status"],"msg":"as asked","type":"value_error"}]}'`,
  // { "tenths": 30 }; ends with 499 when cancelled.
  slow: `flag="/tmp/cancel-$HTTP_X_FAL_REQUEST_ID"
if [ "$PATH_INFO" = /cancel ]; then touch "$flag"; ${JSON_HEAD}; printf '{}'; exit; fi
${INPUT}
left=${field('tenths')}
while [ "$left" -gt 0 ]; do
  if [ -e "$flag" ]; then
    printf 'Status: 499 Cancelled\\r\\nContent-Type: application/json\\r\\n\\r\\n{"detail":"cancelled by the app"}'
    exit
  fi
  sleep 0.1
  left=$((left - 1))
done
${JSON_HEAD}
printf '{"slept":true}'`,
  // { "file": "/data/…" }: its digest, and whether it can be written.
  sum: `${INPUT}
file=${field('file')}
if (echo x >> "$file") 2>/dev/null; then writable=true; else writable=false; fi
${JSON_HEAD}
printf '{"sha256":"%s","writable":%s}' "$(sha256sum "$file" | cut -c1-64)" "$writable"`,
};

const boot = `busybox mkdir -p /tmp/bin /tmp/www/cgi-bin
busybox --install -s /tmp/bin
export PATH=/tmp/bin
cd /tmp/www
echo ok > health
${Object.entries(scripts)
  .map(([name, text]) => `cat > cgi-bin/${name} <<'END'\n#!/bin/sh\n${text}\nEND`)
  .join('\n')}
chmod +x cgi-bin/*
echo "serving on $PORT"
trap 'exit 0' TERM
httpd -f -p "$PORT" -h /tmp/www &
wait`;

export interface CgiOptions {
  app: string;
  image: string;
  scaling?: Record<string, number>;
  /** More of the app file. */
  more?: Record<string, unknown>;
}

/** The text of its app file. JSON is YAML. */
export function cgiApp({ app, image, scaling = {}, more = {} }: CgiOptions): string {
  return JSON.stringify({
    app,
    image,
    command: ['/bin/busybox', 'sh', '-c', boot],
    port: 8000,
    health: { path: '/health' },
    machine: { gpus: 0 },
    scaling: { max_concurrency: 1, keep_alive: 60, ...scaling },
    timeouts: { startup_timeout: 20, request_timeout: 60, termination_grace_period_seconds: 2 },
    ...more,
  });
}

/** How often the app served a request, by a runner's log. */
export function executionsIn(log: string, requestId: string): number {
  return log.split('\n').filter((line) => line === `${EXECUTED} ${requestId}`).length;
}
