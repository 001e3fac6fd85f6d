// The OpenAPI 3.1 document, derived from the table of routes. Nothing is written by hand here but the frame.
import { z } from 'zod';
import { allRoutes, type Route } from './routes.ts';
import { errorView } from './views.ts';

type Json = Record<string, unknown>;

/** @param version of the program */
export function openApiDocument(version: string): Json {
  const paths: Record<string, Json> = {};
  for (const route of allRoutes) {
    const methods = route.method === 'ANY' ? ['get', 'post', 'put', 'delete'] : [route.method];
    const item = (paths[route.path] ??= {});
    for (const method of methods) item[method.toLowerCase()] = operation(route, method);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'runmesh coordinator',
      version,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths,
    components: {
      securitySchemes: {
        key: { type: 'apiKey', in: 'header', name: 'Authorization', description: 'Key <token>' },
      },
    },
    security: [{ key: [] }, {}],
  };
}

function operation(route: Route, method: string): Json {
  const word = route.path.split('/')[1] ?? '';
  return {
    operationId: idOf(route, method),
    summary: route.summary,
    tags: [word === 'v1' ? 'platform' : word || 'page'],
    parameters: [...pathParameters(route), ...queryParameters(route)],
    ...(route.body === undefined || method === 'GET'
      ? {}
      : { requestBody: { content: bodyContent(route.body), required: route.body === 'bytes' } }),
    responses: {
      [String(route.status ?? 200)]: { description: 'Done.', content: answerContent(route.answer) },
      default: {
        description: 'Refused; the code says why.',
        content: { 'application/json': { schema: schemaOf(errorView, 'output') } },
      },
    },
  };
}

function idOf(route: Route, method: string): string {
  const words = route.path.split(/[^a-z0-9]+/i).filter((word) => word !== '');
  return [method.toLowerCase(), ...words].join('_');
}

/** Every name in braces is a parameter, described by the table or a plain text. */
function pathParameters(route: Route): Json[] {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? '');
  return names.map((name) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
    ...(name === 'path' ? { description: 'the rest of the path, may hold slashes' } : {}),
  }));
}

function queryParameters(route: Route): Json[] {
  return Object.entries(route.query?.shape ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
    schema: schemaOf(schema as z.ZodType, 'input'),
  }));
}

function bodyContent(body: NonNullable<Route['body']>): Json {
  if (body === 'bytes')
    return { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } };
  return { 'application/json': { schema: schemaOf(body, 'input') } };
}

function answerContent(answer: Route['answer']): Json {
  const stream = { schema: { type: 'string' } };
  if (answer === 'bytes') return { 'application/octet-stream': stream };
  if (answer === 'text') return { 'text/plain': stream };
  if (answer === 'events') return { 'text/event-stream': stream };
  return { 'application/json': { schema: schemaOf(answer, 'output') } };
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}
