// What somebody sees who opens the coordinator in a browser: what this is and where to go on.

export function homePage(version: string): string {
  return `runmesh ${version} - serverless GPU platform on machines you own

  /queue/{owner}/{app}   submit, status, result, cancel   (fal's queue.fal.run)
  /run/{owner}/{app}     call an app directly             (fal's fal.run)
  /v1/…                  apps, runners, nodes, requests
  /openapi.json          every route
  /metrics               for Prometheus
  /healthz  /readyz      for load balancers

The unmodified JavaScript client:

  import { createFalClient } from '@fal-ai/client';
  const hosts = { 'fal.run': '/run', 'queue.fal.run': '/queue' };
  const fal = createFalClient({
    credentials: 'any:key',
    requestMiddleware: async (request) => {
      const url = new URL(request.url);
      return { ...request, url: BASE + hosts[url.host] + url.pathname + url.search };
    },
  });
  await fal.subscribe('owner/app', { input: {} });

Documents: README.md of the project, and one in each folder.
`;
}
