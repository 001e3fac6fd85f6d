// fal's own client, unmodified, pointed at a coordinator by rewriting URLs: the whole of what a caller needs to change.
import { createFalClient, type FalClient } from '@fal-ai/client';

export function falClient(baseUrl: string): FalClient {
  const hosts: Record<string, string> = {
    'fal.run': '/run',
    'queue.fal.run': '/queue',
    'rest.fal.ai': '/rest',
  };
  return createFalClient({
    credentials: 'any:thing',
    requestMiddleware: async (request) => {
      const url = new URL(request.url);
      return { ...request, url: `${baseUrl}${hosts[url.host] ?? ''}${url.pathname}${url.search}` };
    },
  });
}
